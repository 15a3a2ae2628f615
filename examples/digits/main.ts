/**
 * A mixture-of-experts layer on real input: patches of handwritten digits are the tokens, a gate fitted to them
 * picks the experts, and the grouped computation (moePermute, experts, moeUnpermute) is compared with the dense
 * one, in which all experts see all tokens.
 */
import * as tf from '../../src/tf';
import {barChart} from './bar_chart';
import {cutPatches, IMAGE_SIZE, loadDigits} from './digits';
import {makeExperts, runDense, runGrouped} from './experts';
import {Gate} from './gate';

const PATCH_SIZE = 14;
const NUM_EXPERTS = 8;
const TOPK = 2;
const OUTPUT_SIZE = 64;
const IMAGES_PER_BATCH = 1000;
/** Every 20th image, with all of its patches, is what the gate is fitted to. */
const SAMPLE_SPACING = 20;
/** Of the largest value: both ways add the same float32 products in different orders. */
const TOLERANCE = 1e-4;

const hiddenSize = PATCH_SIZE ** 2;
const patchesPerImage = (IMAGE_SIZE / PATCH_SIZE) ** 2;

const number = (value: number) => value.toLocaleString('en-US');
const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;

/** All patches of those images as rows [T, H]. */
function tokensOf(patches: Float32Array, images: number[]): tf.Tensor2D {
  const size = patchesPerImage * hiddenSize;
  const rows = new Float32Array(images.length * size);
  images.forEach((image, i) => rows.set(patches.subarray(image * size, (image + 1) * size), i * size));
  return tf.tensor2d(rows, [images.length * patchesPerImage, hiddenSize]);
}

function timed<T>(run: () => T): {result: T; ms: number} {
  const start = performance.now();
  return {result: run(), ms: performance.now() - start};
}

const largestMagnitude = (x: tf.Tensor) => tf.tidy(() => tf.max(tf.abs(x)).dataSync()[0]);

function fitGate(patches: Float32Array, imageIds: number[]): Gate {
  const sample = tokensOf(patches, imageIds.filter((image) => image % SAMPLE_SPACING === 0));
  const {result: gate, ms} = timed(() => Gate.fit(sample, NUM_EXPERTS));
  console.log(
    `Fitted the gate by k-means to ${number(sample.shape[0])} patches in ${seconds(ms)}: ` +
      `top ${TOPK} of ${NUM_EXPERTS} experts, each a projection ${hiddenSize} -> ${OUTPUT_SIZE}`,
  );
  sample.dispose();
  return gate;
}

/** Both ways for every batch. The routing is common to both and not part of either time. */
function compareBatches(patches: Float32Array, imageIds: number[], gate: Gate) {
  const experts = makeExperts(NUM_EXPERTS, hiddenSize, OUTPUT_SIZE);
  const allExperts = tf.concat(experts, 1);
  const load = new Array<number>(NUM_EXPERTS).fill(0);
  const total = {load, groupedMs: 0, denseMs: 0, largestValue: 0, largestDifference: 0};
  for (let first = 0; first < imageIds.length; first += IMAGES_PER_BATCH) {
    tf.tidy(() => {
      const batch = imageIds.slice(first, first + IMAGES_PER_BATCH);
      const tokens = tokensOf(patches, batch);
      const routing = gate.route(tokens, TOPK);
      for (const expert of routing.topkIds.dataSync()) {
        load[expert]++;
      }
      const grouped = timed(() => runGrouped(tokens, routing, experts));
      const dense = timed(() => runDense(tokens, routing, allExperts, NUM_EXPERTS));
      total.groupedMs += grouped.ms;
      total.denseMs += dense.ms;
      total.largestValue = Math.max(total.largestValue, largestMagnitude(dense.result));
      const difference = largestMagnitude(tf.sub(grouped.result, dense.result));
      total.largestDifference = Math.max(total.largestDifference, difference);
      const progress = number(first + batch.length).padStart(8);
      console.log(`${progress} images: grouped ${seconds(grouped.ms)}, dense ${seconds(dense.ms)}`);
    });
  }
  tf.dispose([allExperts, ...experts]);
  return total;
}

async function main(): Promise<void> {
  await tf.setBackend('cpu');
  const numTensorsBefore = tf.memory().numTensors;

  const {pixels, numImages} = loadDigits();
  const patches = cutPatches(pixels, PATCH_SIZE);
  console.log(
    `Loaded ${number(numImages)} handwritten digits, cut into ${number(numImages * patchesPerImage)} patches ` +
      `of ${PATCH_SIZE}x${PATCH_SIZE}: the tokens, H = ${hiddenSize}`,
  );
  const imageIds = Array.from({length: numImages}, (_, image) => image);
  const gate = fitGate(patches, imageIds);

  console.log(`Computing every batch of ${number(IMAGES_PER_BATCH)} images grouped by expert, then densely:`);
  const {load, groupedMs, denseMs, largestValue, largestDifference} = compareBatches(patches, imageIds, gate);
  gate.dispose();

  console.log(`Expert load, ${number(load.reduce((sum, count) => sum + count, 0))} assignments:`);
  console.log(barChart(load.map((_, expert) => `expert ${expert}`), load));
  console.log(
    `Largest difference from dense ${largestDifference.toExponential(2)}, largest value ` +
      `${largestValue.toFixed(3)}: ratio ${(largestDifference / largestValue).toExponential(2)}, ` +
      `allowed ${TOLERANCE.toExponential(0)}`,
  );
  console.log(
    `Time on the ${tf.getBackend()} backend: grouped ${seconds(groupedMs)}, dense ${seconds(denseMs)}; ` +
      `dense / grouped = ${(denseMs / groupedMs).toFixed(2)}`,
  );

  const numLeaked = tf.memory().numTensors - numTensorsBefore;
  if (numLeaked !== 0) {
    throw new Error(`${numLeaked} tensors were not disposed.`);
  }
  // Written so that NaN fails too.
  if (!(largestDifference <= TOLERANCE * largestValue)) {
    throw new Error('The grouped computation differs from the dense one by more than is allowed.');
  }
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
