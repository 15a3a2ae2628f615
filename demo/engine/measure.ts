/** Launches and times of kernels, and a mixture beside the dense layer of all of its experts. */
import * as tf from '@tensorflow/tfjs-core';
import {fusedExperts} from '../../src/ops/index';

export type KernelTime = {
  name: string;
  /** How many programs ran on the device. Undefined on the host, which has none. */
  launches?: number;
  /** In ms. Undefined where the device gives no times. */
  time?: number;
};

export type Comparison = {
  numTokens: number;
  hiddenSize: number;
  expertSize: number;
  numExperts: number;
  topk: number;
  /** In ms. */
  mixture: number;
  dense: number;
};

/** The kernels of a call, with all launches of a kernel in one entry, in the order in which they first ran. */
export async function kernelTimes(call: () => tf.Tensor): Promise<{kernels: KernelTime[]; hasDeviceTimes: boolean}> {
  // Once before, so that no shader is compiled in the measured call.
  const warmUp = tf.tidy(call);
  await warmUp.data();
  warmUp.dispose();
  const {kernels} = await tf.profile(async () => {
    const result = tf.tidy(call);
    await result.data();
    result.dispose();
    return [];
  });
  const isOnHost = tf.getBackend() === 'cpu';
  const byName = new Map<string, KernelTime>();
  let hasDeviceTimes = true;
  for (const {name, kernelTimeMs, extraInfo} of kernels) {
    const time = await kernelTimeMs;
    const programs = typeof extraInfo === 'string' ? extraInfo : await (extraInfo as Promise<string> | undefined);
    const isTimed = typeof time === 'number' && (isOnHost || time > 0);
    const launches = isOnHost ? undefined : (programs ?? '').split(', ').filter((word) => word !== '').length;
    // Views, and what was done on the host, launch nothing. Scopes, which are no kernels, hold the times of others.
    if (launches === 0 || tf.getKernel(name, tf.getBackend()) == null) {
      continue;
    }
    hasDeviceTimes &&= isTimed;
    const sum = byName.get(name) ?? {name};
    byName.set(name, {
      name,
      launches: launches == null ? undefined : (sum.launches ?? 0) + launches,
      time: isTimed ? (sum.time ?? 0) + time : sum.time,
    });
  }
  return {kernels: [...byName.values()], hasDeviceTimes};
}

const NUM_RUNS = 5;

/** Sizes that take some 100 ms at most: plain JavaScript multiplies a thousandth as fast as a GPU. */
const sizes = {
  software: {numTokens: 64, hiddenSize: 64, expertSize: 128, numExperts: 16, topk: 2},
  gpu: {numTokens: 512, hiddenSize: 256, expertSize: 512, numExperts: 16, topk: 2},
};

/** Random experts on random tokens. The dense layer has all experts side by side, and each token passes through all. */
export async function compare(isOnGpu: boolean): Promise<Comparison> {
  const size = isOnGpu ? sizes.gpu : sizes.software;
  const {numTokens, hiddenSize, expertSize, numExperts, topk} = size;
  const tensors = tf.tidy(() => ({
    x: tf.randomNormal<tf.Rank.R2>([numTokens, hiddenSize]),
    w1: tf.randomNormal<tf.Rank.R3>([numExperts, expertSize, hiddenSize]),
    w2: tf.randomNormal<tf.Rank.R3>([numExperts, hiddenSize, expertSize]),
    topkWeights: tf.fill<tf.Rank.R2>([numTokens, topk], 1 / topk),
    topkIds: tf.tensor2d(
      Array.from({length: numTokens * topk}, (_, slot) => (slot * 7 + Math.floor(slot / numExperts)) % numExperts),
      [numTokens, topk],
      'int32',
    ),
  }));
  const {x, w1, w2, topkWeights, topkIds} = tensors;
  const wide = tf.tidy(() => ({
    up: tf.reshape<tf.Rank.R2>(w1, [numExperts * expertSize, hiddenSize]),
    down: tf.reshape<tf.Rank.R2>(tf.transpose(w2, [0, 2, 1]), [numExperts * expertSize, hiddenSize]),
  }));
  const mixture = () => fusedExperts(x, w1, w2, topkWeights, topkIds, {activation: 'relu', gated: false});
  const dense = () => tf.matMul(tf.relu(tf.matMul(x, wide.up, false, true)) as tf.Tensor2D, wide.down);
  const times = {mixture: await medianTime(mixture), dense: await medianTime(dense)};
  tf.dispose([tensors, wide]);
  return {...size, ...times};
}

async function medianTime(call: () => tf.Tensor): Promise<number> {
  const times: number[] = [];
  for (let run = 0; run <= NUM_RUNS; run++) {
    const start = performance.now();
    // A sum, so that few values are brought back.
    const result = tf.tidy(() => tf.sum(call()));
    await result.data();
    result.dispose();
    times.push(performance.now() - start);
  }
  // The first run compiled shaders.
  return times.slice(1).sort((a, b) => a - b)[Math.floor(NUM_RUNS / 2)];
}
