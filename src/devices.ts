/** What the devices of backends are able to do: whether they are lost, and how much of a buffer they bind. */
import type {KernelBackend} from '@tensorflow/tfjs-core';

/** tfjs's WebGL context, by the members that tell it apart. */
type Gpgpu = {gl: WebGLRenderingContext; vertexBuffer?: WebGLBuffer};
type Devices = {gpgpu?: Gpgpu; device?: GPUDevice};

/**
 * A device is lost once and for all. A WebGL context may be restored, which tfjs asks for, but what a backend had made
 * in it before stays invalid, and its draws give zeros without an error. So these are the GPGPUContexts of webgl, of
 * which a new backend has its own, and the devices of webgpu.
 */
const lost = new WeakSet<object>();
const watched = new WeakSet<object>();

/** Notes when the device of a backend is lost, from here on: to be called as early as possible. */
export function watchDevice(backend: KernelBackend): void {
  const {gpgpu, device} = backend as KernelBackend & Devices;
  if (gpgpu?.gl != null && !watched.has(gpgpu)) {
    watched.add(gpgpu);
    watchContext(gpgpu);
  }
  if (device?.lost != null && !watched.has(device)) {
    watched.add(device);
    void device.lost.then(() => lost.add(device));
  }
}

function watchContext(gpgpu: Gpgpu): void {
  const {gl, vertexBuffer} = gpgpu;
  // Lost and restored before: asks the device, once.
  if (vertexBuffer != null && !gl.isContextLost() && !gl.isBuffer(vertexBuffer)) {
    lost.add(gpgpu);
  }
  // There is no canvas outside of browsers.
  gl.canvas?.addEventListener?.('webglcontextlost', () => lost.add(gpgpu));
}

/** What the device of a backend is, if it is lost: nothing that the backend holds or computes is right any more. */
export function lostDeviceOf(backend: KernelBackend): 'WebGL context' | 'WebGPU device' | undefined {
  watchDevice(backend);
  const {gpgpu, device} = backend as KernelBackend & Devices;
  if (gpgpu?.gl != null && (gpgpu.gl.isContextLost() || lost.has(gpgpu))) {
    return 'WebGL context';
  }
  return device?.lost != null && lost.has(device) ? 'WebGPU device' : undefined;
}

/** Bytes of a buffer that the device of a backend binds, if that has a limit. */
export function maxBindingBytesOf(backend: KernelBackend): number {
  const limits = (backend as KernelBackend & Devices).device?.limits;
  return limits == null ? Infinity : Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize);
}
