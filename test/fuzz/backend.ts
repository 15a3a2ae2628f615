/** The backend under test: its start and restart, its memory and its errors. */
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {registerWebGPUBackend} from '../../src/webgpu';
import * as tf from '../../src/tf';

export const backendNames = ['cpu', 'webgl', 'webgpu'] as const;
export type BackendName = (typeof backendNames)[number];

export const webglBackend = () => tf.backend() as MathBackendWebGL;
export const webgpuBackend = () => tf.backend() as WebGPUBackend;

/** Errors that devices have reported: in WebGPU they throw nothing. */
const reported: string[] = [];

/** Starts or restarts a backend. */
export async function startBackend(name: BackendName): Promise<void> {
  if (name === 'webgpu') {
    await registerWebGPUBackend();
  } else if (name === 'webgl' && tf.engine().registry.webgl != null) {
    const factory = tf.findBackendFactory('webgl');
    tf.removeBackend('webgl');
    tf.registerBackend('webgl', factory);
  }
  if (!(await tf.setBackend(name))) {
    throw new Error(`The backend '${name}' cannot start here.`);
  }
  // Otherwise tfjs compiles its own programs again for every shape.
  tf.env().set('WEBGL_USE_SHAPES_UNIFORMS', true);
  if (name === 'webgpu') {
    webgpuBackend().device.addEventListener('uncapturederror', ({error}) => reported.push(error.message));
  }
}

export async function deviceName(): Promise<string> {
  switch (tf.getBackend()) {
    case 'webgl': {
      const {gl} = webglBackend().gpgpu;
      const debug = gl.getExtension('WEBGL_debug_renderer_info');
      return String(gl.getParameter(debug == null ? gl.RENDERER : debug.UNMASKED_RENDERER_WEBGL));
    }
    case 'webgpu': {
      const info = (await navigator.gpu.requestAdapter())?.info;
      return `${info?.vendor} ${info?.architecture} ${info?.description}`.trim();
    }
    default:
      return 'host';
  }
}

/** Whether the context or device of the backend is lost. */
export async function isLost(): Promise<boolean> {
  switch (tf.getBackend()) {
    case 'webgl':
      return webglBackend().gpgpu.gl.isContextLost();
    case 'webgpu':
      return Promise.race([webgpuBackend().device.lost.then(() => true), Promise.resolve(false)]);
    default:
      return false;
  }
}

/**
 * The values of a tensor. With shapes as uniforms, tfjs 4.22 reads a tensor that has more rows than a texture with the
 * program of a smaller tensor, and returns other values. Such a tensor gets a program of its own.
 */
export function valuesOf(tensor: tf.Tensor): Promise<Float32Array | Int32Array | Uint8Array> {
  if (tf.getBackend() !== 'webgl' || tensor.size / (tensor.shape.at(-1) || 1) <= tf.env().getNumber('WEBGL_MAX_TEXTURE_SIZE')) {
    return tensor.data();
  }
  tf.env().set('WEBGL_USE_SHAPES_UNIFORMS', false);
  try {
    return tensor.data();
  } finally {
    tf.env().set('WEBGL_USE_SHAPES_UNIFORMS', true);
  }
}

export type MemoryInUse = Record<'numTensors' | 'numDataBuffers' | 'numBytes' | 'numBytesInGPU', number>;

/** The memory in use after the device has done all of its work. */
export async function memoryInUse(): Promise<MemoryInUse> {
  // A read of a result submits all open work.
  tf.env().set('WEBGPU_CPU_FORWARD', false);
  const last = tf.tidy(() => tf.neg(tf.scalar(1)));
  await last.data();
  last.dispose();
  const {numTensors, numDataBuffers, numBytes, numBytesInGPU = 0} = tf.memory() as tf.MemoryInfo & {numBytesInGPU?: number};
  return {numTensors, numDataBuffers, numBytes, numBytesInGPU};
}

export function assertSameMemory(before: MemoryInUse, after: MemoryInUse): void {
  for (const name of Object.keys(before) as Array<keyof MemoryInUse>) {
    if (before[name] !== after[name]) {
      throw new Error(`${name} was ${before[name]}, and is ${after[name]} once all is disposed`);
    }
  }
}

/** Throws the errors that the device has reported since the last call. */
export async function assertNoDeviceErrors(): Promise<void> {
  if (tf.getBackend() === 'webgpu') {
    // Errors arrive before the end of the last submitted work is reported.
    await webgpuBackend().device.queue.onSubmittedWorkDone();
  }
  const errors = reported.splice(0);
  if (errors.length > 0) {
    throw new Error(`the device reports ${errors.length} errors: ${errors[0]}`);
  }
}
