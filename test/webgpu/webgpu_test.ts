/** Mistakes that only the WebGPU kernels can make. */
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {MoeUnpermuteBackpropRows, MoeUnpermuteBackpropWeights} from '../../src/contract/kernel_names';
import {runMoeKernel} from '../../src/contract/run_kernel';
import {entryPoint, runWgsl} from '../../src/kernels/shared/webgpu';
import {webgpuRecorder} from '../../src/kernels/shared/webgpu_steps';
import {registerWebGPUBackend} from '../../src/webgpu';
import {expectFloats} from '../support/expect';
import {
  callsOfAllKernels,
  expectAllOptions,
  expectNoReads,
  expectNothingLeftByThrows,
  expectNothingOfPoison,
  expectRightBetweenOtherOps,
} from '../support/gpu_specs';
import {countingRows} from '../support/tensors';
import {countLaunches, isOwn, onLaunch} from '../support/webgpu_launches';
import {registerSharedDevice} from '../runner/webgpu_device';

const webgpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'webgpu'};
const backend = () => tf.backend() as WebGPUBackend;

/** Leaves buffers full of NaN in the backend's pool, in the sizes of these tensors. */
async function poison(shapes: number[][]): Promise<void> {
  const poisoned = shapes.flatMap((shape) => [0, 1, 2].map(() => tf.div(tf.zeros(shape), tf.zeros(shape))));
  await Promise.all(poisoned.map((tensor) => tensor.data()));
  tf.dispose(poisoned);
}

/** The number of buffers in use after all work is submitted; before that, the buffers of the work are in use too. */
async function countUsedBuffers(): Promise<number> {
  const sum = tf.tidy(() => tf.add(tf.ones([1]), tf.ones([1])));
  await sum.data();
  sum.dispose();
  return backend().bufferManager.getNumUsedBuffers();
}

/** Runs on a device whose limit is that it binds at most so many bytes. */
function withBindingLimit(maxStorageBufferBindingSize: number, run: () => void): void {
  const {device} = backend();
  const {limits} = device;
  // In Node.js a property of the device, in browsers of its prototype.
  const own = Object.getOwnPropertyDescriptor(device, 'limits');
  const value = new Proxy(limits, {
    get: (target, name) =>
      name === 'maxStorageBufferBindingSize' ? maxStorageBufferBindingSize : (Reflect.get(target, name) as unknown),
  });
  Object.defineProperty(device, 'limits', {value, configurable: true});
  webgpuRecorder.forget(backend());
  try {
    run();
  } finally {
    delete (device as Partial<{limits: GPUSupportedLimits}>).limits;
    if (own != null) {
      Object.defineProperty(device, 'limits', own);
    }
  }
}

describeWithFlags('WebGPU', webgpu, () => {
  it('takes all options of moePermute at once', () => expectAllOptions(8));

  it('takes rows that are not whole vec4s', () => expectAllOptions(7));

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

  it('binds nothing past the limit of a binding, and says so', () => {
    const column = tf.ones<tf.Rank.R2>([2, 1]);
    const slots = tf.zeros<tf.Rank.R2>([2, 20], 'int32');
    const weights = tf.ones<tf.Rank.R2>([2, 20]);
    const offset = tf.zeros<tf.Rank.R1>([9], 'int32');
    const ofSlots = {invPermutedIdx: slots, expertFirstTokenOffset: offset};
    const calls: ReturnType<typeof callsOfAllKernels> = [
      // Indices and offsets that are larger than the tensors that they index.
      ['expertMap', () => tf.moePermute(column, [[0], [1]], 9, {expertMap: offset})],
      ['offset', () => tf.moeUnpermute(column, column, [[0], [1]], offset)],
      ['offset of products', () => tf.moeGroupedMatMul(column, tf.ones([8, 1, 1]), offset)],
      ['slots', () => runMoeKernel(MoeUnpermuteBackpropRows, {dy: column, topkWeights: weights, ...ofSlots}, {numRows: 2})],
      ['slots of weights', () => runMoeKernel(MoeUnpermuteBackpropWeights, {dy: column, permutedHiddenStates: column, ...ofSlots}, {})],
    ];
    for (const [name, call] of [...calls, ...callsOfAllKernels()]) {
      const sizes = new Set<number>();
      webgpuRecorder.forget(backend());
      const undoSizes = onLaunch((launch) => {
        if (isOwn(launch)) {
          launch.bufferSizes.forEach((size) => sizes.add(size));
        }
      });
      tf.dispose(tf.tidy(call));
      undoSizes();
      for (const size of sizes) {
        let largest = 0;
        const undoLargest = onLaunch((launch) => {
          if (isOwn(launch)) {
            largest = Math.max(largest, ...launch.bufferSizes);
          }
        });
        // The stand-in for an empty tensor has 16 bytes; no device has so low a limit.
        const limit = Math.max(16, size - 4);
        withBindingLimit(limit, () => {
          const run = () => tf.dispose(tf.tidy(call));
          if (Math.max(...sizes) > limit) {
            expect(run).withContext(name).toThrowError(/^Error in \w+: .* takes \d+ bytes, but this device binds at most \d+ in one/);
          } else {
            run();
          }
        });
        undoLargest();
        expect(largest).withContext(name).toBeLessThanOrEqual(limit);
      }
    }
  });

  it('launches nothing of a kernel that cannot bind all of its tensors', () => {
    const x = tf.zeros<tf.Rank.R2>([2, 4]);
    const ids = tf.zeros<tf.Rank.R2>([2, 2], 'int32');
    const calls: Array<[largest: number, call: () => unknown]> = [
      [4 * 16, () => tf.moePermute(x, ids, 1)],
      [4 * 801, () => tf.moePermute(x, ids, 800)],
      [4 * 5 * 801, () => tf.moePermute(tf.zeros([1100, 1]), tf.zeros([1100, 2], 'int32'), 800)],
      [4 * 5 * 801, () => tf.moeAlignBlockSize(tf.zeros([1100, 2], 'int32'), 1, 800)],
      [4 * 32, () => tf.moeGroupedMatMul(x, tf.zeros([1, 8, 4]), [0, 2])],
      // The core ops of the op would bind its tensors, because they run many tokens in chunks.
      [4 * 8, () => tf.fusedExperts(x, tf.zeros([1, 2, 4]), tf.zeros([1, 4, 1]), tf.zeros([2, 1]), tf.zeros([2, 1], 'int32'))],
    ];
    tf.tidy(() => {
      for (const [largest, call] of calls) {
        withBindingLimit(largest - 4, () => {
          expect(countLaunches(() => expect(call).toThrowError(/binds at most/))).toBe(0);
        });
      }
    });
  });

  it('leaves no buffer of a kernel that throws', () =>
    expectNothingLeftByThrows(
      (announce) => onLaunch((launch) => isOwn(launch) && announce()),
      countUsedBuffers,
    ));

  it('reads nothing back', expectNoReads);
});

describe('a lost WebGPU device', () => {
  afterAll(async () => {
    await tf.setBackend('cpu');
    registerSharedDevice();
  });

  const error = (opName: string) =>
    `Error in ${opName}: the WebGPU device is lost, and with it every tensor that it held. Remove the backend and register ` +
    'it again.';

  it('is an error that names the op, until there is a backend on another device', async () => {
    await registerWebGPUBackend();
    await tf.setBackend('webgpu');
    expect(tf.moePermuteUnpermuteSupported()).toBeTrue();
    const {device} = backend();
    device.destroy();
    await device.lost;
    expect(tf.moePermuteUnpermuteSupported()).toBeFalse();
    const before = tf.memory().numTensors;
    expect(() => tf.moePermute([[1]], [[0]], 1)).toThrowError(error('moePermute'));
    expect(() => tf.moeAlignBlockSize([[0]], 2, 1)).toThrowError(error('moeAlignBlockSize'));
    expect(() => tf.moeTopk([[1]], 1)).toThrowError(error('moeTopk'));
    expect(() => tf.moeSum([[[1]]])).toThrowError(error('moeSum'));
    expect(tf.memory().numTensors).toBe(before);

    tf.removeBackend('webgpu');
    await registerWebGPUBackend();
    await tf.setBackend('webgpu');
    expect(tf.moePermuteUnpermuteSupported()).toBeTrue();
    await expectFloats(tf.moePermute([[1], [2]], [[1], [0]], 2).permutedHiddenStates, [2, 1], 'rows');
  });

  it('is noticed if the backend ran before its kernels were registered', async () => {
    const adapter = (await navigator.gpu.requestAdapter())!;
    const device = await adapter.requestDevice();
    const own = new WebGPUBackend(device, adapter.info);
    tf.registerBackend('own-webgpu', () => own);
    await tf.setBackend('own-webgpu');
    tf.registerMoeKernels('own-webgpu', 'webgpu');
    expect(tf.moePermuteUnpermuteSupported()).toBeTrue();
    device.destroy();
    await device.lost;
    expect(tf.moePermuteUnpermuteSupported()).toBeFalse();
    expect(() => tf.moeSum([[[1]]])).toThrowError(error('moeSum'));
    await tf.setBackend('cpu');
    tf.removeBackend('own-webgpu');
  });
});

describeWithFlags('the compilation of shaders ahead on webgpu', webgpu, () => {
  const launch = () => {
    const out = backend().makeTensorInfo([4], 'float32');
    runWgsl(backend(), {
      name: 'MoeCompiledAhead',
      buffers: [{name: 'out', type: 'f32', access: 'read_write', tensor: out}],
      uniforms: {size: 4},
      numWorkgroups: 1,
      code: () => entryPoint('if (thread < uniforms.size) { out[thread] = 7.0; }'),
    });
    return tf.engine().makeTensorFromTensorInfo(out);
  };

  /** Compiles what is asked for, and gives the number of launches. */
  async function compileOnly(run: () => void): Promise<number> {
    tf.env().set('WEBGPU_ENGINE_COMPILE_ONLY', true);
    try {
      const numLaunches = countLaunches(run);
      await backend().checkCompileCompletionAsync();
      return numLaunches;
    } finally {
      tf.env().set('WEBGPU_ENGINE_COMPILE_ONLY', false);
    }
  }

  it('launches nothing, and leaves nothing to compile to the first launch', async () => {
    const {device} = backend();
    const atOnce = spyOn(device, 'createComputePipeline').and.callThrough();
    const ahead = spyOn(device, 'createComputePipelineAsync').and.callThrough();
    expect(await compileOnly(() => tf.dispose([launch(), launch()]))).toBe(0);
    expect(ahead).toHaveBeenCalledTimes(1);
    await expectFloats(launch(), [7, 7, 7, 7], 'out');
    expect(atOnce).not.toHaveBeenCalled();
    expect(ahead).toHaveBeenCalledTimes(1);
  });

  it('leaves kernels right that were asked for meanwhile', async () => {
    const permute = () => tf.moePermute(countingRows(3, 2), tf.tensor2d([1, 0, 1], [3, 1], 'int32'), 2);
    expect(await compileOnly(() => tf.dispose(permute()))).toBe(0);
    const {permutedHiddenStates} = permute();
    await expectFloats(permutedHiddenStates, [2, 3, 0, 1, 4, 5], 'permutedHiddenStates');
  });
});

describeWithFlags('the source of a shader on webgpu', webgpu, () => {
  const launch = (name: string, statement: string) =>
    runWgsl(backend(), {
      name,
      buffers: [{name: 'out', type: 'f32', access: 'read_write', tensor: backend().makeTensorInfo([4], 'float32')}],
      uniforms: {size: 4},
      numWorkgroups: 1,
      code: () => entryPoint(statement),
    });

  it("is printed if tfjs's flag asks for it", () => {
    const [group, debug] = [spyOn(console, 'group'), spyOn(console, 'debug')];
    tf.env().set('WEBGPU_PRINT_SHADER', 'moeprinted');
    launch('MoePrinted', 'if (thread < uniforms.size) { out[thread] = 1.0; }');
    launch('MoeOther', 'if (thread < uniforms.size) { out[thread] = 2.0; }');
    tf.env().set('WEBGPU_PRINT_SHADER', '');
    expect(group).toHaveBeenCalledTimes(1);
    expect(debug.calls.allArgs().join()).toContain('out[thread] = 1.0;');
  });

  it('is printed with numbered lines if it does not compile', async () => {
    const error = spyOn(console, 'error');
    const {device} = backend();
    device.pushErrorScope('validation');
    launch('MoeBroken', 'out[thread] = unknownName;');
    await backend().queue.onSubmittedWorkDone();
    expect(await device.popErrorScope()).not.toBeNull();
    const [message] = error.calls.allArgs().flat() as string[];
    expect(message).toMatch(/^The shader MoeBroken does not compile\.\n\d+:\d+ [^|]*unknownName/);
    expect(message).toMatch(/\n *\d+ \| .*out\[thread\] = unknownName;/);
  });
});

describe('registerWebGPUBackend', () => {
  afterAll(async () => {
    await tf.setBackend('cpu');
    registerSharedDevice();
  });

  it('gives tfjs a device with every useful feature and limit of the adapter', async () => {
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

  it('reads in some milliseconds, also where Firefox would look every 100, and submits nothing afterwards', async () => {
    await registerWebGPUBackend();
    await tf.setBackend('webgpu');
    const times: number[] = [];
    for (let i = 0; i < 9; i++) {
      const begin = performance.now();
      await tf.add(tf.ones([4]), tf.scalar(i)).data();
      times.push(performance.now() - begin);
    }
    times.sort((a, b) => a - b);
    expect(times[4]).withContext(`ms: ${times.map(Math.round)}`).toBeLessThan(50);
    const submits = spyOn(backend().queue, 'submit').and.callThrough();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(submits).not.toHaveBeenCalled();
  });

  it('says what is missing and what to do, and registers nothing', async () => {
    const before = tf.findBackendFactory('webgpu');
    const withoutAdapter = {requestAdapter: async () => null} as unknown as GPU;
    await expectAsync(registerWebGPUBackend({gpu: withoutAdapter})).toBeRejectedWithError(
      /^Error in registerWebGPUBackend: WebGPU has no adapter here\. .*driver.*VK_ICD_FILENAMES.*chrome:\/\/gpu/,
    );
    expect(tf.findBackendFactory('webgpu')).toBe(before);
  });
});
