import type {TestEnv} from '@tensorflow/tfjs-core/dist/jasmine_util';

/** The backends that the specs run on, in every browser of the Karma matrix. */
export const testedBackends: TestEnv[] = [
  {name: 'cpu', backendName: 'cpu', isDataSync: true},
  {name: 'wasm', backendName: 'wasm', isDataSync: true},
  // Small inputs too go to the device. Shapes are uniforms of tfjs's own programs, as they always are of ours: or tfjs
  // compiles a program for every shape, which takes software GPUs most of the time of the specs.
  {
    name: 'webgl',
    backendName: 'webgl',
    flags: {WEBGL_VERSION: 2, WEBGL_CPU_FORWARD: false, WEBGL_USE_SHAPES_UNIFORMS: true},
    isDataSync: true,
  },
  {name: 'webgpu', backendName: 'webgpu', flags: {WEBGPU_CPU_FORWARD: false}, isDataSync: false},
];
