/** The kernels of decoding: launches of a step, memory over many steps, and caches of many tiles. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import type {CausalSelfAttentionArgs} from '../../src/layers/index';
import * as tf from '../../src/tf';
import {attentionLayer} from '../support/attention_cases';
import {expectWithin} from '../support/expect';
import {randomTensor} from '../support/layers';
import {countLaunches, onLaunch} from '../support/webgpu_launches';

/** The launches of the third step. */
function launchesOfStep(args: CausalSelfAttentionArgs, hiddenSize: number): string[] {
  const layer = attentionLayer({hiddenSize, args});
  const cache = layer.makeCache(1, 10);
  const x = tf.ones<tf.Rank.R3>([1, 1, hiddenSize]);
  const step = () => layer.attend(x, cache).dispose();
  step();
  step();
  const labels: string[] = [];
  const undo = onLaunch(({label}) => labels.push(label));
  step();
  undo();
  cache.dispose();
  return labels;
}

describeWithFlags('decoding on webgpu', ALL_ENVS, () => {
  it('takes 6 launches for a step of attention, and more for norms and biases', () => {
    const heads = {numHeads: 4, numKeyValueHeads: 2};
    const plain = launchesOfStep(heads, 16);
    expect(plain.length).toBe(6);
    expect(plain.filter((label) => label.startsWith('Moe'))).toEqual(['MoeRotateIntoCache', 'MoeCachedAttention']);
    expect(launchesOfStep({...heads, queryKeyNormalization: 'head'}, 16).length).toBe(8);
    expect(launchesOfStep({...heads, useBias: true, useOutputBias: true, useSinks: true}, 16).length).toBe(10);
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
    for (const args of [{numHeads: 2, headDim: 6}, {numHeads: 4, numKeyValueHeads: 1, headDim: 8, useSinks: true, slidingWindow: 300}, {numHeads: 1, headDim: 256}]) {
      const layer = attentionLayer({hiddenSize: 4, args});
      const x = randomTensor([1, 600, 4], 5) as tf.Tensor3D;
      const wanted = (await (layer.apply(x) as tf.Tensor).data()) as Float32Array;
      const cache = layer.makeCache(1, 600);
      const parts = [layer.attend(tf.slice(x, [0, 0, 0], [1, 597, 4]), cache), layer.attend(tf.slice(x, [0, 597, 0], [1, 3, 4]), cache)];
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
