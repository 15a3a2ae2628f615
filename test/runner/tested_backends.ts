import type {TestEnv} from '@tensorflow/tfjs-core/dist/jasmine_util';

/** The backends that the specs run on, in every browser of the Karma matrix. */
export const testedBackends: TestEnv[] = [
  {name: 'cpu', backendName: 'cpu', isDataSync: true},
  {name: 'wasm', backendName: 'wasm', isDataSync: true},
  // Small inputs too go to the device.
  {name: 'webgl', backendName: 'webgl', flags: {WEBGL_VERSION: 2, WEBGL_CPU_FORWARD: false}, isDataSync: true},
  {name: 'webgpu', backendName: 'webgpu', flags: {WEBGPU_CPU_FORWARD: false}, isDataSync: false},
];
