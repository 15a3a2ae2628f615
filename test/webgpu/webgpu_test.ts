/** What only the WebGPU kernels can get wrong. */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {registerWebGPUBackend} from '../../src/register_webgpu_backend';
import {expectFloats} from '../support/expect';
import {expectAllOptions, expectNoReads, expectNothingOfPoison, expectRightBetweenOtherOps} from '../support/gpu_specs';
import {countingRows} from '../support/tensors';
import {registerSharedDevice} from '../support/webgpu_device';

const webgpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'webgpu'};
const backend = () => tf.backend() as WebGPUBackend;

/** Leaves buffers full of NaN in the backend's pool, of the sizes that these tensors have. */
async function poison(shapes: number[][]): Promise<void> {
  const poisoned = shapes.flatMap((shape) => [0, 1, 2].map(() => tf.div(tf.zeros(shape), tf.zeros(shape))));
  await Promise.all(poisoned.map((tensor) => tensor.data()));
  tf.dispose(poisoned);
}

/** How many programs run. */
function countLaunches(run: () => void): number {
  const target = backend();
  let numLaunches = 0;
  const counted: WebGPUBackend['runWebGPUProgram'] = (...args) => {
    numLaunches++;
    return Object.getPrototypeOf(target).runWebGPUProgram.apply(target, args) as tf.TensorInfo;
  };
  target.runWebGPUProgram = counted;
  run();
  delete (target as Partial<WebGPUBackend>).runWebGPUProgram;
  return numLaunches;
}

describeWithFlags('WebGPU', webgpu, () => {
  it('takes all options of moePermute at once', () => expectAllOptions(8));

  it('takes rows of no whole vec4', () => expectAllOptions(7));

  it('does not rely on what its buffers hold', () => expectNothingOfPoison(poison));

  it('works between other ops, in one batch', expectRightBetweenOtherOps);

  it('makes few launches', () => {
    const few = {x: tf.zeros<tf.Rank.R2>([8, 4]), ids: tf.zeros<tf.Rank.R2>([8, 2], 'int32')};
    const many = {x: tf.zeros<tf.Rank.R2>([5000, 1]), ids: tf.zeros<tf.Rank.R2>([5000, 2], 'int32')};
    const scale = tf.zeros<tf.Rank.R2>([5000, 1]);
    const offset = tf.tensor1d([0, 16], 'int32');
    const rows = tf.zeros<tf.Rank.R2>([16, 4]);
    const weights = tf.ones<tf.Rank.R2>([8, 2]);
    tf.tidy(() => {
      expect(countLaunches(() => tf.moePermute(few.x, few.ids, 4))).toBe(1);
      expect(countLaunches(() => tf.moePermute(many.x, many.ids, 4))).toBe(3);
      expect(countLaunches(() => tf.moePermute(many.x, many.ids, 4, {a1qScale: scale}))).toBe(4);
      expect(countLaunches(() => tf.moePermuteBlockAligned(many.x, many.ids, 4, 16))).toBe(3);
      expect(countLaunches(() => tf.moeUnpermute(rows, weights, few.ids, offset))).toBe(1);
      expect(countLaunches(() => tf.moeAlignBlockSize(few.ids, 4, 4))).toBe(1);
      expect(countLaunches(() => tf.moeAlignBlockSize(many.ids, 4, 4))).toBe(3);
      expect(countLaunches(() => tf.moeSum(tf.zeros([8, 2, 4])))).toBe(1);
      const logits = tf.zeros<tf.Rank.R2>([300, 160]);
      const wide = tf.zeros<tf.Rank.R2>([3, 5000]);
      const bias = tf.zeros<tf.Rank.R1>([160]);
      const all = {scoreCorrectionBias: bias, numExpertGroups: 8, topkGroups: 4};
      const dWeights = tf.zeros<tf.Rank.R2>([300, 6]);
      expect(countLaunches(() => tf.moeTopk(logits, 6))).toBe(1);
      expect(countLaunches(() => tf.moeTopk(logits, 6, all))).toBe(1);
      expect(countLaunches(() => tf.moeTopk(wide, 6))).toBe(1);
      expect(countLaunches(() => tf.grad((y: tf.Tensor) => tf.moeTopk(y, 6).topkWeights)(logits, dWeights))).toBe(2);
    });
  });

  it('folds a launch of more than 65,535 workgroups', async () => {
    const topk = 8;
    const numTokens = 8200;
    const rows = countingRows(16, 1);
    const inverse = tf.tensor2d(Int32Array.from({length: numTokens * topk}, (_, i) => i % 17), [numTokens, topk]);
    const toWeights = (w: tf.Tensor) => tf.moeUnpermute(rows, w, inverse);
    const gradient = tf.grad(toWeights)(tf.zeros([numTokens, topk]), tf.ones([numTokens, 1]));
    const wanted = Float32Array.from({length: numTokens * topk}, (_, i) => (i % 17 < 16 ? i % 17 : 0));
    await expectFloats(gradient, wanted, 'gradient');
  });

  it('says which tensor is past the limit of a binding, before any work', () => {
    const limit = backend().device.limits.maxStorageBufferBindingSize;
    const hiddenSize = 2 ** 20;
    const topk = Math.ceil(limit / (4 * hiddenSize)) + 1;
    const x = tf.zeros<tf.Rank.R2>([1, hiddenSize]);
    const topkIds = tf.zeros<tf.Rank.R2>([1, topk], 'int32');
    const before = tf.memory().numTensors;
    expect(() => tf.moePermute(x, topkIds, 1)).toThrowError(
      `Error in moePermute: permutedHiddenStates [${topk},${hiddenSize}] takes ${4 * topk * hiddenSize} bytes, but ` +
        `this device binds at most ${limit} in one buffer (maxStorageBufferBindingSize).`,
    );
    expect(tf.memory().numTensors).toBe(before);
  });

  it('reads nothing back', expectNoReads);
});

describe('registerWebGPUBackend', () => {
  afterAll(async () => {
    await tf.setBackend('cpu');
    registerSharedDevice();
  });

  it('gives tfjs a device with all that the adapter has', async () => {
    await registerWebGPUBackend({powerPreference: 'low-power'});
    expect(await tf.setBackend('webgpu')).toBeTrue();
    const adapter = (await navigator.gpu.requestAdapter())!;
    const {features, limits} = backend().device;
    for (const feature of ['subgroups', 'shader-f16', 'timestamp-query']) {
      expect(features.has(feature as GPUFeatureName)).withContext(feature).toBe(adapter.features.has(feature as GPUFeatureName));
    }
    expect(limits.maxStorageBuffersPerShaderStage).toBe(adapter.limits.maxStorageBuffersPerShaderStage);
    expect(limits.maxStorageBufferBindingSize).toBe(adapter.limits.maxStorageBufferBindingSize);
    tf.env().set('WEBGPU_CPU_FORWARD', false);
    await expectAllOptions(8);
  });

  it('says what is missing and what helps, and registers nothing', async () => {
    const before = tf.findBackendFactory('webgpu');
    const withoutAdapter = {requestAdapter: async () => null} as unknown as GPU;
    await expectAsync(registerWebGPUBackend({gpu: withoutAdapter})).toBeRejectedWithError(
      /^Error in registerWebGPUBackend: WebGPU has no adapter here\. .*driver.*VK_ICD_FILENAMES.*chrome:\/\/gpu/,
    );
    expect(tf.findBackendFactory('webgpu')).toBe(before);
  });
});
