import assert from 'node:assert/strict';
import {engine, getGradient, getKernel, getKernelsForBackend} from '@tensorflow/tfjs-core';
import * as moe from 'tfjs-moe';

assert.deepEqual(Object.keys(engine().registryFactory), [], 'importing must not bring a backend');
const kernelNames = Object.keys(moe).filter((name) => /^Moe/.test(name) && typeof moe[name] === 'string');
// They run only where no gradient is wanted of them.
const ofDecoding = ['MoeCachedAttention', 'MoeProjections', 'MoeRmsNorm', 'MoeRotateIntoCache', 'MoeScaledSum'];
const withoutGradient = ['MoeFusedExperts', 'MoeExpertsDownBackprop', ...ofDecoding];
/** Kernels that some backends do without. */
const isOn = {
  MoeExpertsDownBackprop: (backendName) => backendName !== 'webgl',
  ...Object.fromEntries(ofDecoding.map((name) => [name, (backendName) => backendName === 'webgpu'])),
};
for (const backendName of ['cpu', 'wasm', 'tensorflow', 'webgl', 'webgpu']) {
  const named = kernelNames.filter((name) => isOn[name]?.(backendName) ?? true);
  named.forEach((kernelName) => assert.ok(getKernel(kernelName, backendName), `${kernelName} on ${backendName}`));
  assert.equal(getKernelsForBackend(backendName).length, named.length);
}
for (const kernelName of kernelNames.filter((name) => !withoutGradient.includes(name))) {
  assert.ok(getGradient(kernelName), `the gradient of ${kernelName}`);
}
