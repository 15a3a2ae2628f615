/** The devices of backends: whether a device is lost, the largest buffer that it binds, and what its textures hold. */
import {type KernelBackend, type TensorInfo, util} from '@tensorflow/tfjs-core';

/** tfjs's WebGL context, by the members that identify it. */
type Gpgpu = {gl: WebGLRenderingContext; vertexBuffer?: WebGLBuffer};
type Devices = {gpgpu?: Gpgpu; device?: GPUDevice};

/** tfjs's record of a tensor on WebGL, by the members that tell where its values are. */
type TextureRecord = {texture?: unknown; values?: unknown; usage?: number; slice?: unknown};
type Textures = {
  texData?: {has: (dataId: TensorInfo['dataId']) => boolean; get: (dataId: TensorInfo['dataId']) => TextureRecord};
};

/** tfjs's TextureUsage.PIXELS, which the package does not export: a texture of four bytes a texel. */
export const PIXELS = 2;

/**
 * A lost device stays lost. tfjs asks for a WebGL context to be restored, but everything that a backend made in the
 * context before stays invalid, and its draws give zeros without an error. So the set holds the GPGPUContexts of webgl,
 * because a new backend has a new one, and the devices of webgpu.
 */
const lost = new WeakSet<object>();
const watched = new WeakSet<object>();

/** Notes from now on when the device of a backend is lost. Call it as early as possible. */
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
  // The context may have been lost and restored before. This asks the device, once.
  if (vertexBuffer != null && !gl.isContextLost() && !gl.isBuffer(vertexBuffer)) {
    lost.add(gpgpu);
  }
  // There is no canvas outside browsers.
  gl.canvas?.addEventListener?.('webglcontextlost', () => lost.add(gpgpu));
}

/** The kind of a backend's device if it is lost. Nothing that the backend then holds or computes is right. */
export function lostDeviceOf(backend: KernelBackend): 'WebGL context' | 'WebGPU device' | undefined {
  watchDevice(backend);
  const {gpgpu, device} = backend as KernelBackend & Devices;
  if (gpgpu?.gl != null && (gpgpu.gl.isContextLost() || lost.has(gpgpu))) {
    return 'WebGL context';
  }
  return device?.lost != null && lost.has(device) ? 'WebGPU device' : undefined;
}

/** The most bytes that the device of a backend binds in one buffer, if it has a limit. */
function largestBinding(backend: KernelBackend): number | undefined {
  const limits = (backend as KernelBackend & Devices).device?.limits;
  return limits == null ? undefined : Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize);
}

/**
 * Asserts that the device of a backend, if it has a limit, can bind each tensor as a whole. If a tensor is too large, a
 * device drops all work of a batch without an error. Tensors are given as names and shapes.
 */
export function assertBindable(
  backend: KernelBackend,
  opName: string,
  tensors: Record<string, number[]>,
  /** What to do instead, by the limit. */
  remedy: (limit: number) => string = () => '',
): void {
  const limit = largestBinding(backend);
  if (limit == null) {
    return;
  }
  for (const [name, shape] of Object.entries(tensors)) {
    const numBytes = 4 * util.sizeFromShape(shape);
    util.assert(
      numBytes <= limit,
      () =>
        `Error in ${opName}: ${name} [${shape}] takes ${numBytes} bytes, but this device binds at most ${limit} in one ` +
        `buffer (maxStorageBufferBindingSize).${remedy(limit)}`,
    );
  }
}

/**
 * Asserts that the words of packed codes or scales are on the host, or in a texture of bytes that was made of them. The
 * textures of other ops on webgl round integers. Other backends keep them anywhere.
 */
export function assertKeepsWords(backend: KernelBackend, opName: string, name: string, {dataId}: TensorInfo): void {
  const {gpgpu, texData} = backend as KernelBackend & Devices & Textures;
  if (gpgpu == null || texData?.has(dataId) !== true) {
    return;
  }
  const {texture, values, usage, slice} = texData.get(dataId);
  util.assert(
    values != null && slice == null && (texture == null || usage === PIXELS),
    () =>
      `Error in ${opName}: ${name} must be on the host on the webgl backend, whose textures round integers, but another ` +
      'op has moved them into one. Pass them as they were loaded or made.',
  );
}
