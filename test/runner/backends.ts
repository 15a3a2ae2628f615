/** Sets the backends that the specs run on. One that cannot start is a failure. */
import {env, getBackend} from '@tensorflow/tfjs-core';
import {setTestEnvs} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {setWasmPaths} from '@tensorflow/tfjs-backend-wasm';
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
setTestEnvs(requiredBackends());
// On wasm tfjs copies what a custom gradient saves, and its check of kernels in tests takes the copies for a leak.
beforeEach(() => env().set('IS_TEST', getBackend() !== 'wasm'));
