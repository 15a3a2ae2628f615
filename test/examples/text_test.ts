/** The language model of `npm start -- text`, on a few lines. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {amountsFor} from '../../examples/text/amounts';
import {alphabetOf, splitText} from '../../examples/text/characters';
import {configOf, NUM_EXPERTS, TOPK} from '../../examples/text/model';
import {describeExperts} from '../../examples/text/terminal';
import {type Report, type Trained, trainOnText} from '../../examples/text/training';

const SAMPLE_LENGTH = 12;
const lines = 'And God said, Let there be light: and there was light.\n'.repeat(800);
const amounts = {numLayers: 2, hiddenSize: 64, expertSize: 16, windowLength: 16, numSteps: 6, batchSize: 4, learningRate: 0.02, stepsPerReport: 3, sampleLength: SAMPLE_LENGTH};

/** The layers and kernels of such models have their own specs on every backend. */
const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

describeWithFlags('the text example', cpu, () => {
  it('learns a few lines, speaks, shows its experts, and leaves no tensor behind', async () => {
    const printed: string[] = [];
    const reports: Report[] = [];
    let trained: Trained | undefined;
    const missed = await trainOnText(lines, amounts, {print: (line) => printed.push(line), onReport: (report) => reports.push(report), onTrained: async (given) => void (trained = given)});
    expect(missed).toEqual([]);
    expect(printed[1]).toMatch(/untrained: \d\.\d{3} bits a character/);
    expect(reports.map(({step}) => step)).toEqual([3, 6]);
    expect(reports[1].heldOutBits).toBeLessThan(reports[0].heldOutBits);
    expect(trained!.config).toEqual(configOf(trained!.alphabet.size, amounts));

    const {loads, sample} = reports[1];
    expect(loads.length).toBe(amounts.numLayers);
    for (const load of loads) {
      expect(load.reduce((sum, count) => sum + count)).toBe(100 * amounts.windowLength * TOPK);
    }
    expect(sample.text.length).toBe('And '.length + SAMPLE_LENGTH);
    expect(sample.experts.length).toBe(amounts.numLayers);
    for (const ofLayer of sample.experts) {
      expect(ofLayer.length).toBe(sample.text.length);
      expect(ofLayer.every((expert) => Number.isInteger(expert) && expert >= 0 && expert < NUM_EXPERTS)).toBeTrue();
    }
  });
});

describe('the characters of the text example', () => {
  it('have ids in the order of their codes', () => {
    const alphabet = alphabetOf('banana\n');
    expect(alphabet.vocabulary).toEqual({'\n': 0, a: 1, b: 2, n: 3});
    expect(alphabet.encode('nab')).toEqual([3, 1, 2]);
    expect(alphabet.decode([2, 1, 3])).toBe('ban');
    expect(() => alphabet.encode('bad')).toThrowError("The text that the model learns has no 'd'.");
  });

  it('are for training, or every twentieth stretch of them held out', () => {
    const text = Array.from({length: 85_000}, (_, i) => String.fromCharCode(97 + Math.floor(i / 2000))).join('');
    const {training, heldOut} = splitText(text);
    expect(heldOut).toBe(text.slice(38_000, 40_000) + text.slice(78_000, 80_000));
    expect(training.length).toBe(81_000);
  });

  it('are shown with their experts, with colours and without', () => {
    const report = {loads: [[1, 3]], sample: {text: 'a\nb', experts: [[0, 1, 1]]}} as Report;
    expect(describeExperts(report, false)).toBe('  load of the experts of layer 0:  0: 25 %  1: 75 % \n    a¶b\n    011');
    expect(describeExperts(report, true)).toContain('\x1b[30;48;5;210ma\x1b[0m\x1b[30;48;5;215m¶\x1b[0m');
  });
});

describe('the steps of the text example', () => {
  it('are those asked for, or as many as the backend does', () => {
    expect(amountsFor('cpu', '7')).toEqual({...amountsFor('cpu', null), numSteps: 7});
    expect(amountsFor('webgpu', null).numSteps).toBeGreaterThan(amountsFor('cpu', null).numSteps);
    expect(() => amountsFor('cpu', '0')).toThrowError("steps must be an integer of 1 to 1000000, but is '0'.");
  });
});
