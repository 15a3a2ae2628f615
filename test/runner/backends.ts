/** Sets the backends that the specs run on. One that cannot start is a failure. */
import {env, getBackend, ones, setBackend, tidy} from '@tensorflow/tfjs-core';
import {ALL_ENVS, describeWithFlags, setTestEnvs} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {setWasmPaths} from '@tensorflow/tfjs-backend-wasm';
import {constraints} from '@tensorflow/tfjs-layers';
import './webgpu_device';
import {testedBackends} from './tested_backends';
import './webgpu_errors';

declare const __karma__: {config: {args: string[]}};

/** Those of Karma's flag --backends, all without it. */
function requiredBackends(): typeof testedBackends {
  const {args} = __karma__.config;
  const wanted = args[args.indexOf('--backends') + 1].split(',').filter((name) => name !== '');
  const unknown = wanted.filter((name) => !testedBackends.some((env) => env.name === name));
  if (unknown.length > 0) {
    throw new Error(`No such backends: ${unknown.join(', ')}. There are ${testedBackends.map(({name}) => name).join(', ')}.`);
  }
  return wanted.length === 0 ? testedBackends : testedBackends.filter(({name}) => wanted.includes(name));
}

setWasmPaths('/base/node_modules/@tensorflow/tfjs-backend-wasm/dist/');
const required = requiredBackends();
/** The user agent of Chromium names WebKit too. */
const {userAgent} = navigator;
const browser = userAgent.includes('Firefox') ? 'Firefox' : userAgent.includes('Chrome') ? 'Chromium' : 'WebKit';
const place = typeof window === 'undefined' ? 'Node.js' : browser;

/**
 * Has the specs that are described next run on these backends, of those required; whether there are any. With
 * `WEBGL_USE_SHAPES_UNIFORMS` tfjs compiles a program of its own for all shapes of a rank, not for each shape.
 */
export function setSpecBackends(names: {[place: string]: string[]}, WEBGL_USE_SHAPES_UNIFORMS: boolean): boolean {
  const backends = required.filter(({name}) => names[place].includes(name));
  const withShapes = (env: (typeof required)[number]) =>
    env.name === 'webgl' ? {...env, flags: {...env.flags, WEBGL_USE_SHAPES_UNIFORMS}} : env;
  setTestEnvs(backends.map(withShapes));
  return backends.length > 0;
}

/** tfjs-layers keeps the epsilon of the first backend that asks for it: here the first of the page. */
const keepLayersEpsilon = () => tidy(() => void constraints.unitNorm({axis: 0}).apply(ones([1])));

// Where a backend does not start, tfjs goes on with another one, without a word.
setTestEnvs(required);
describeWithFlags('the backend', ALL_ENVS, ({backendName}) => {
  it(`${backendName} starts`, async () => {
    expect(await setBackend(backendName)).toBeTrue();
    expect(getBackend()).toBe(backendName);
    keepLayersEpsilon();
  });
});

// On wasm tfjs copies what a custom gradient saves, and its check of kernels in tests takes the copies for a leak.
beforeEach(() => env().set('IS_TEST', getBackend() !== 'wasm'));
