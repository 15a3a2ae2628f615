/**
 * Compiles the shaders of checks side by side. tfjs compiles a shader when a kernel first needs it: one after the
 * other, which takes most of the time of a check on a GPU.
 *
 * So the specs are gone through once beforehand with tfjs's flag that compiles programs and runs none. No result is
 * looked at then.
 */
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {TestEnv} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../src/tf';
import {results} from '../test/support/expect';
import type {DescribedSpecs} from './described_specs';
import {randomRoutings} from './random_routings';

type Body = () => unknown;

const compileOnlyFlags: Record<string, string> = {
  webgl: 'ENGINE_COMPILE_ONLY',
  webgpu: 'WEBGPU_ENGINE_COMPILE_ONLY',
};

/** What any expectation is here: it can be called and has all matchers, but is no promise. */
const noExpectation: unknown = new Proxy(() => noExpectation, {
  get: (_, name) => (name === 'then' ? undefined : noExpectation),
});

/** Calls with other values of globals or of an object's members. */
async function withMembers<T extends object>(target: T, members: Partial<T>, call: () => unknown): Promise<void> {
  const names = Object.keys(members) as (keyof T)[];
  const before = new Map(names.map((name) => [name, Object.getOwnPropertyDescriptor(target, name)]));
  Object.assign(target, members);
  try {
    await call();
  } finally {
    for (const [name, descriptor] of before) {
      delete target[name];
      if (descriptor != null) {
        Object.defineProperty(target, name, descriptor);
      }
    }
  }
}

/** The bodies of specs, without their being described to jasmine. */
async function bodiesOf(groups: DescribedSpecs[], env: TestEnv): Promise<Body[]> {
  const bodies: Body[] = [];
  const collect = {
    describe: (_name: string, specs: () => void) => specs(),
    it: (_name: string, body: Body) => void bodies.push(body),
  };
  await withMembers<object>(globalThis, collect, () => groups.forEach(({specs}) => specs(env)));
  return bodies;
}

/** Zeros of a tensor's size and dtype: no program has written its values. */
function zerosOf(dataId: object): tf.TypedArray {
  const backend = tf.backend() as WebGPUBackend | MathBackendWebGL;
  const {shape, dtype} = 'tensorMap' in backend ? backend.tensorMap.get(dataId) : backend.texData.get(dataId);
  return tf.util.makeZerosTypedArray(tf.util.sizeFromShape(shape), dtype as 'float32');
}

/** Runs the bodies one after the other. What they make of zeros, errors among it, means nothing. */
async function goThrough(bodies: Body[]): Promise<void> {
  for (const body of bodies) {
    tf.engine().startScope();
    try {
      await body();
    } catch {
      // A body may end early; what it has left to compile is compiled when it runs.
    } finally {
      tf.engine().endScope();
      tf.disposeVariables();
    }
  }
}

/** Compiles the shaders that the specs need on the current backend. The host has none. */
export async function compileShaders(env: TestEnv, groups: DescribedSpecs[]): Promise<void> {
  const flag = compileOnlyFlags[env.name];
  if (flag == null) {
    return;
  }
  const bodies = await bodiesOf(groups, env);
  const backend = tf.backend() as WebGPUBackend | MathBackendWebGL;
  const noRead = {read: (dataId: object) => Promise.resolve(zerosOf(dataId)), readSync: zerosOf};
  const oneRound = {end: 0, leastSeconds: 0, onProgress: () => {}};
  tf.env().set(flag, true);
  results.areLookedAt = false;
  try {
    await withMembers<object>(globalThis, {expect: () => noExpectation}, () =>
      withMembers<object>(backend, noRead, () => withMembers(randomRoutings, oneRound, () => goThrough(bodies))),
    );
    await backend.checkCompileCompletionAsync();
    if ('getUniformLocations' in backend) {
      backend.getUniformLocations();
    }
  } finally {
    results.areLookedAt = true;
    tf.env().set(flag, false);
  }
}
