/** The language model of the live page: what a visitor changes on it, and takes back. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {eachExpert, type Edits, noEdits} from '../../demo/engine/settings';
import {TextNet} from '../../demo/engine/text_net';
import {alphabetOf} from '../../examples/text/characters';
import {TOPK} from '../../examples/text/model';
import * as tf from '../../src/tf';

const text = 'And God said, Let there be light: and there was light.';
const {vocabulary} = alphabetOf(text);

/** The layers and kernels have their own specs on every backend. */
const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

const silencing = (isSilenced: (expert: number) => boolean): Edits => ({...noEdits(), silenced: eachExpert(isSilenced)});

describeWithFlags('the language model of the live page', cpu, () => {
  let net: TextNet;
  let numTensors: number;
  beforeEach(async () => {
    ({numTensors} = tf.memory());
    net = await TextNet.random(vocabulary, false);
  });
  afterEach(async () => {
    await net.dispose();
    expect(tf.memory().numTensors).toBe(numTensors);
  });

  it('sends no character to a silenced expert of a layer, and to others as before when it is heard again', async () => {
    const before = await net.routesOf(text);
    expect(before.length).toBe(text.length);
    const silenced = before[0][1].experts[0];
    net.edit([noEdits(), silencing((expert) => expert === silenced)]);
    const edited = await net.routesOf(text);
    expect(edited.flatMap((route) => route[1].experts)).not.toContain(silenced);
    expect(edited.map(([route]) => route)).toEqual(before.map(([route]) => route));
    net.edit([]);
    expect(await net.routesOf(text)).toEqual(before);
    expect(await net.routesOf('')).toEqual([]);
  });

  it('sends all characters to the two experts that are left', async () => {
    net.edit([silencing((expert) => expert >= TOPK), noEdits()]);
    for (const [{experts}] of await net.routesOf(text)) {
      expect([...experts].sort()).toEqual([0, 1]);
    }
  });

  it('has another loss with its edits, and without them the same', async () => {
    const before = await net.bitsOf(text, true);
    net.edit([{...noEdits(), boosts: eachExpert(() => 8)}, {...noEdits(), sources: eachExpert(() => 5)}]);
    const edited = await net.bitsOf(text, true);
    expect(Math.abs(edited - before)).toBeGreaterThan(1e-4);
    expect(await net.bitsOf(text, false)).toBe(before);
    expect(await net.bitsOf(text, true)).toBe(edited);
  });

  it('trains without its edits, which act again after it, and goes on elsewhere as it is', async () => {
    net.edit([silencing((expert) => expert === 2)]);
    const before = await net.bitsOf(text, false);
    const ids = net.alphabet.encode(text.repeat(3));
    const reports = [await net.trainStep(ids, false), await net.trainStep(ids, false), await net.trainStep(ids, false)];
    expect(reports.map(({step}) => step)).toEqual([1, 2, 3]);
    expect(reports[0].loads.length).toBe(net.numLayers);
    expect(reports[2].bits).toBeLessThan(reports[0].bits);
    net.endTraining();
    const after = await net.bitsOf(text, false);
    expect(after).toBeLessThan(before);
    expect((await net.routesOf(text)).flatMap(([{experts}]) => experts)).not.toContain(2);

    const state = await net.state();
    await net.dispose();
    net = await TextNet.restore(state);
    expect(await net.bitsOf(text, true)).toBe(after);
  });
});
