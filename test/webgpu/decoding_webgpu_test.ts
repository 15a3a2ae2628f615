/** The kernels of decoding: launches of a step, memory over many steps, and caches of many tiles. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import type {CausalSelfAttention, CausalSelfAttentionArgs} from '../../src/layers/index';
import {projections} from '../../src/layers/projections';
import * as tf from '../../src/tf';
import {attentionLayer} from '../support/attention_cases';
import {expectWithin} from '../support/expect';
import {randomTensor} from '../support/layers';
import {attentionPair} from '../support/quantized_projections';
import {countLaunches, onLaunch} from '../support/webgpu_launches';

const int8 = {format: 'int8', groupSize: 16, scaleFormat: 'float16'} as const;

/** The labels of what runs. */
function launchesOf(run: () => unknown): string[] {
  const labels: string[] = [];
  const undo = onLaunch(({label}) => labels.push(label));
  run();
  undo();
  return labels;
}

/** The launches of the third step. */
function launchesOfStep(layer: CausalSelfAttention, hiddenSize: number): string[] {
  const cache = layer.makeCache(1, 10);
  const x = tf.ones<tf.Rank.R3>([1, 1, hiddenSize]);
  const step = () => layer.attend(x, cache).dispose();
  step();
  step();
  const labels = launchesOf(step);
  cache.dispose();
  return labels;
}

describeWithFlags('decoding on webgpu', ALL_ENVS, () => {
  it('takes 4 launches for a step of attention, and more for norms and biases', () => {
    const heads = {numHeads: 4, numKeyValueHeads: 2};
    const launchesOf = (args: CausalSelfAttentionArgs) => launchesOfStep(attentionLayer({hiddenSize: 16, args}), 16);
    const plain = launchesOf(heads);
    expect(plain.length).toBe(4);
    expect(plain.filter((label) => label.startsWith('Moe'))).toEqual(['MoeProjections3_quads_1', 'MoeRotateIntoCache', 'MoeCachedAttention', 'MoeProjections1_quads_1']);
    expect(launchesOf({...heads, queryKeyNormalization: 'head'}).length).toBe(6);
    expect(launchesOf({...heads, useBias: true, useOutputBias: true, useSinks: true}).length).toBe(8);
  });

  it('takes as many launches for a step of attention with kernels in codes, and 1 for its three biases', () => {
    const launchesOf = (args: CausalSelfAttentionArgs) => launchesOfStep(attentionPair({args, hiddenSize: 16}, int8).quantized, 16);
    const heads = {numHeads: 4, numKeyValueHeads: 2};
    const encoding = 'int8_16_float16_128';
    const ofAttention = ['MoeRotateIntoCache', 'MoeCachedAttention'];
    expect(launchesOf(heads)).toEqual([`MoeQuantizedProjections3_${encoding}`, ...ofAttention, `MoeQuantizedProjections1_${encoding}`]);
    expect(launchesOf({...heads, queryKeyNormalization: 'head'}).length).toBe(6);
    expect(launchesOf({...heads, useBias: true, useOutputBias: true, useSinks: true}).length).toBeLessThanOrEqual(6);
  });

  it('computes a step of attention with kernels in codes as with their values', async () => {
    const {quantized, standIn} = attentionPair({args: {numHeads: 4, numKeyValueHeads: 2}, hiddenSize: 16}, int8);
    const x = randomTensor([1, 1, 16], 5) as tf.Tensor3D;
    const [given, wanted] = [quantized, standIn].map((layer) => {
      const cache = layer.makeCache(1, 1);
      const output = layer.attend(x, cache);
      cache.dispose();
      return output;
    });
    const values = (await wanted.data()) as Float32Array;
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    expect(largest).toBeGreaterThan(0);
    await expectWithin(given, values, () => 1e-5 * largest, 'step');
  });

  it('takes 1 launch for embeddings in codes, and 1 for logits', () => {
    const layer = tf.layers.reversibleEmbedding({vocabSize: 8, units: 16, embeddingsFormat: 'bfloat16'});
    layer.build([null, null]);
    const encoding = 'bfloat16_0_float32_0';
    for (const [input, name] of [[tf.ones([1, 1], 'int32'), 'MoeDequantizeRows'], [tf.ones([1, 1, 16]), 'MoeQuantizedProjections1']] as const) {
      layer.apply(input);
      expect(launchesOf(() => layer.apply(input))).toEqual([`${name}_${encoding}`]);
    }
  });

  it('multiplies few rows with one to three matrices of any size', async () => {
    const sizes = [[8, 4, 4], [5, 1, 7], [64, 3, 8], [130, 6], [1, 5], [300, 20, 12, 9], [520, 36, 8, 4]];
    for (const [numIn, ...numsOut] of sizes) {
      for (const numRows of [1, 3, 4]) {
        const x = randomTensor([1, numRows, numIn], 1) as tf.Tensor3D;
        const kernels = numsOut.map((numOut, i) => randomTensor([numIn, numOut], i + 2) as tf.Tensor2D);
        const bias = randomTensor([numsOut[0]], 9) as tf.Tensor1D;
        const given = kernels.map((kernel, i) => ({kernel, bias: i === 0 ? bias : undefined}));
        let outs: tf.Tensor[] = [];
        const labels = launchesOf(() => (outs = projections(x, given)));
        expect(labels.filter((label) => label.startsWith('MoeProjections')).length).toBe(1);
        for (const [i, kernel] of kernels.entries()) {
          const product = tf.matMul(tf.reshape(x, [numRows, numIn]), kernel);
          const wanted = await (i === 0 ? tf.add(product, bias) : product).array() as number[][];
          await expectWithin(outs[i], [wanted], () => 1e-6 * numIn, `[${numRows}, ${numIn}] . [${numIn}, ${numsOut[i]}]`);
        }
      }
    }
    expect(launchesOf(() => projections(tf.ones([1, 5, 8]), [{kernel: tf.ones([8, 4]), bias: undefined}]))[0]).not.toMatch(/^Moe/);
  });

  it('takes 1 launch for a scaled sum, but not for a gradient', async () => {
    const sum = tf.layers.scaledSum({factors: [1, -0.5]});
    const inputs = [randomTensor([2, 3, 7], 1), randomTensor([2, 3, 7], 2)];
    expect(launchesOf(() => sum.apply(inputs))).toEqual(['MoeScaledSum']);
    const wanted = await tf.add(inputs[0], tf.mul(inputs[1], -0.5)).array() as number[][][];
    await expectWithin(sum.apply(inputs) as tf.Tensor, wanted, () => 1e-6, 'scaled sum');
    const [gradient] = tf.grads((a, b) => sum.apply([a, b]) as tf.Tensor)(inputs).slice(1);
    await expectWithin(tf.reshape(gradient, [42]), new Array<number>(42).fill(-0.5), () => 0, 'gradient');
  });

  it('takes 1 launch for rmsNormalization, but not for a gradient', async () => {
    const norm = tf.layers.rmsNormalization();
    const x = randomTensor([2, 3, 6], 3);
    norm.apply(x);
    expect(countLaunches(() => norm.apply(x))).toBe(1);
    expect(countLaunches(() => tf.grad((input) => norm.apply(input) as tf.Tensor)(x))).toBeGreaterThan(10);
  });

  it('has flat memory of tfjs and of the device over 1,000 steps', async () => {
    const layer = attentionLayer({hiddenSize: 8, args: {numHeads: 2}});
    const cache = layer.makeCache(1, 1000);
    const x = tf.ones<tf.Rank.R3>([1, 1, 8]);
    /** Reads a result every 10 steps, as what waits for the device cannot be given back. */
    const steps = async (numSteps: number) => {
      for (let step = 0; step < numSteps; step++) {
        const output = layer.attend(x, cache);
        if (step % 10 === 9) {
          await output.data();
        }
        output.dispose();
      }
      const {numTensors, numBytesAllocatedInGPU} = tf.memory() as tf.MemoryInfo & {numBytesAllocatedInGPU: number};
      return {numTensors, numBytesAllocatedInGPU};
    };
    const before = await steps(100);
    expect(await steps(900)).toEqual(before);
    cache.dispose();
  });

  it('computes over several tiles of keys, and over a part of one, as a call does', async () => {
    // A tile has 256 keys.
    const cases: Array<[numPositions: number, args: CausalSelfAttentionArgs]> = [
      [600, {numHeads: 2, headDim: 6}],
      [600, {numHeads: 4, numKeyValueHeads: 1, headDim: 8, useSinks: true, slidingWindow: 300}],
      [260, {numHeads: 1, headDim: 256}],
    ];
    for (const [numPositions, args] of cases) {
      const layer = attentionLayer({hiddenSize: 4, args});
      const x = randomTensor([1, numPositions, 4], 5) as tf.Tensor3D;
      const wanted = (await (layer.apply(x) as tf.Tensor).data()) as Float32Array;
      const cache = layer.makeCache(1, numPositions);
      const prompt = numPositions - 3;
      const parts = [layer.attend(tf.slice(x, [0, 0, 0], [1, prompt, 4]), cache), layer.attend(tf.slice(x, [0, prompt, 0], [1, 3, 4]), cache)];
      await expectWithin(tf.concat(parts, 1), wanted, (_, value) => 1e-4 * Math.max(1, Math.abs(value)), JSON.stringify(args));
      cache.dispose();
    }
  });

  it('takes core ops for heads that are wider than a workgroup', async () => {
    const layer = attentionLayer({hiddenSize: 4, args: {numHeads: 1, headDim: 258}});
    const x = randomTensor([1, 3, 4], 5) as tf.Tensor3D;
    const cache = layer.makeCache(1, 3);
    const wanted = (await (layer.apply(x) as tf.Tensor).data()) as Float32Array;
    await expectWithin(layer.attend(x, cache), wanted, (_, value) => 1e-4 * Math.max(1, Math.abs(value)), 'wide');
    cache.dispose();
  });
});
