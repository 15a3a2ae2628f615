import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {webglKernels} from '../../src/kernels/webgl';
import {gradients} from '../../src/gradients/gradients';
import {registerGradients, registerKernels} from '../../src/kernels/register';
import {expectFloats} from '../support/expect';

/** The kernels of every backend. Others run only where no gradient is wanted, and webgl has none of these. */
const kernelNames = Object.keys(webglKernels);
const permute = () => tf.moePermute([[1], [2]], [[1], [0]], 2);

describeWithFlags('backends', ALL_ENVS, (env) => {
  it(`${env.name} is the one that runs`, async () => {
    expect(await tf.setBackend(env.backendName)).toBeTrue();
    expect(tf.getBackend()).toBe(env.backendName);
    expect(kernelNames.every((name) => tf.getKernel(name, env.backendName) != null)).toBeTrue();
  });

  it(`${env.name} is supported while it runs`, () => {
    expect(tf.moePermuteUnpermuteSupported()).toBeTrue();
    expect(tf.moePermuteUnpermuteSupported(env.backendName)).toBeTrue();
    expect(tf.moePermuteUnpermuteSupported(null)).toBeTrue();
  });

  it('a backend that is registered but not running is not supported, and is not started', () => {
    let started = false;
    tf.registerBackend('idle-backend', () => {
      started = true;
      return tf.backend();
    });
    tf.registerMoeKernels('idle-backend', 'cpu');
    expect(tf.moePermuteUnpermuteSupported('idle-backend')).toBeFalse();
    expect(started).toBeFalse();
    expect(tf.moePermuteUnpermuteSupported('no-such-backend')).toBeFalse();
    tf.removeBackend('idle-backend');
  });
});

describe('registration', () => {
  it('serves cpu, wasm and tensorflow, and every kernel that runs for a gradient has one', () => {
    for (const name of kernelNames) {
      for (const backendName of ['cpu', 'wasm', 'tensorflow']) {
        expect(tf.getKernel(name, backendName)).withContext(`${name} on ${backendName}`).toBeDefined();
      }
      if (name !== 'MoeFusedExperts') {
        expect(tf.getGradient(name)).withContext(name).toBeDefined();
      }
    }
  });

  it('serves webgl and webgpu', () => {
    for (const name of kernelNames) {
      for (const backendName of ['webgl', 'webgpu']) {
        expect(tf.getKernel(name, backendName)).withContext(`${name} on ${backendName}`).toBeDefined();
      }
    }
  });

  it('says that a kernel is not registered for a backend that has none', async () => {
    await tf.setBackend('cpu');
    const cpuBackend = tf.backend();
    tf.registerBackend('stranger', () => cpuBackend);
    expect(await tf.setBackend('stranger')).toBeTrue();
    expect(tf.moePermuteUnpermuteSupported()).toBeFalse();
    expect(permute).toThrowError(
      "Error in moePermute: the backend 'stranger' has no kernel MoePermute of tfjs-moe. Call " +
        "registerMoeKernels('stranger', like) to register all kernels; for cpu, webgl and webgpu, importing " +
        'tfjs-moe/kernels/… does so too.',
    );
    await tf.setBackend('cpu');
  });

  it('a second time prints nothing and changes nothing', () => {
    const warn = spyOn(console, 'warn');
    const before = kernelNames.map((name) => tf.getKernel(name, 'cpu'));
    const strangers = Object.fromEntries(
      kernelNames.map((name) => [name, {kernelName: name as 'MoeSum', kernelFunc: () => []}]),
    );
    registerKernels(strangers, 'cpu');
    registerGradients(gradients);
    expect(kernelNames.map((name) => tf.getKernel(name, 'cpu'))).toEqual(before);
    expect(warn).not.toHaveBeenCalled();
  });

  it('registerMoeKernels serves a backend under another name', async () => {
    await tf.setBackend('cpu');
    const cpuBackend = tf.backend();
    tf.registerBackend('my-cpu', () => cpuBackend);
    tf.copyRegisteredKernels('cpu', 'my-cpu');
    tf.registerMoeKernels('my-cpu', 'cpu');
    await tf.setBackend('my-cpu');
    await expectFloats(permute().permutedHiddenStates, [2, 1], 'rows');
    await tf.setBackend('cpu');
  });

  it('runs on a stub of tfjs-node, by its readSync and write alone', async () => {
    await tf.setBackend('cpu');
    const cpuBackend = tf.backend();
    const used = new Set<string>();
    const stub = new Proxy(cpuBackend, {
      get(target, name) {
        const value = Reflect.get(target, name, target) as unknown;
        if (typeof value !== 'function') {
          return value;
        }
        used.add(String(name));
        return value.bind(target);
      },
    });
    const input = (values: number[], shape: number[], dtype: 'float32' | 'int32') => ({
      dataId: cpuBackend.write(dtype === 'int32' ? Int32Array.from(values) : Float32Array.from(values), shape, dtype),
      shape,
      dtype,
    });
    const kernel = tf.getKernel('MoePermute', 'tensorflow');
    const outputs = kernel.kernelFunc({
      inputs: {hiddenStates: input([1, 2], [2, 1], 'float32'), topkIds: input([1, 0], [2, 1], 'int32')},
      attrs: {numExperts: 2, numLocalExperts: 2, alignBlockSize: 0, fillInvalidExpert: -1, padding: 'zero'},
      backend: stub,
    }) as tf.TensorInfo[];
    expect(Array.from(cpuBackend.readSync(outputs[0].dataId) as Float32Array)).toEqual([2, 1]);
    expect([...used].sort()).toEqual(['readSync', 'write']);
  });
});
