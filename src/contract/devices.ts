/** The devices of backends: whether a device is lost, and the largest buffer that it binds. */
import {type KernelBackend, util} from '@tensorflow/tfjs-core';

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

/** The kind of a backend's device, if it is lost: nothing that the backend holds or computes is right any more. */
export function lostDeviceOf(backend: KernelBackend): 'WebGL context' | 'WebGPU device' | undefined {
  watchDevice(backend);
  const {gpgpu, device} = backend as KernelBackend & Devices;
  if (gpgpu?.gl != null && (gpgpu.gl.isContextLost() || lost.has(gpgpu))) {
    return 'WebGL context';
  }
  return device?.lost != null && lost.has(device) ? 'WebGPU device' : undefined;
}

/**
 * Asserts that the device of a backend, if it has such a limit, binds each tensor whole: past it a device drops all
 * work of a batch, and nothing throws. Tensors are given by name, with their shapes.
 */
export function assertBindable(backend: KernelBackend, opName: string, tensors: Record<string, number[]>): void {
  const limits = (backend as KernelBackend & Devices).device?.limits;
  if (limits == null) {
    return;
  }
  const limit = Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize);
  for (const [name, shape] of Object.entries(tensors)) {
    const numBytes = 4 * util.sizeFromShape(shape);
    util.assert(
      numBytes <= limit,
      () =>
        `Error in ${opName}: ${name} [${shape}] takes ${numBytes} bytes, but this device binds at most ${limit} in one ` +
        'buffer (maxStorageBufferBindingSize).',
    );
  }
}
