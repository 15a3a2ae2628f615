import assert from 'node:assert/strict';
import {engine, getGradient, getKernel, getKernelsForBackend} from '@tensorflow/tfjs-core';
import * as moe from 'tfjs-moe';

assert.deepEqual(Object.keys(engine().registryFactory), [], 'importing must not bring a backend');
const kernelNames = Object.keys(moe).filter((name) => /^Moe/.test(name) && typeof moe[name] === 'string');
for (const kernelName of kernelNames) {
  for (const backendName of ['cpu', 'wasm', 'tensorflow', 'webgl', 'webgpu']) {
    assert.ok(getKernel(kernelName, backendName), `${kernelName} on ${backendName}`);
    assert.equal(getKernelsForBackend(backendName).length, kernelNames.length);
  }
  assert.ok(getGradient(kernelName), `the gradient of ${kernelName}`);
}
