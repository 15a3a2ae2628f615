/** Tensors that are filled piece by piece. */
import {backend, engine, getBackend, type Tensor, tensor, type TensorInfo, util} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {assertBindable} from '../../contract/devices';
import type {HostArray} from '../../contract/host_values';

export type TensorWriter = {
  /** Writes values of the tensor's dtype, the first of them at element `at`. */
  write: (at: number, values: HostArray) => void;
  /** The tensor, once. It belongs to the caller. */
  finish: () => Tensor;
  /** Gives the memory back, if the tensor was not finished. */
  dispose: () => void;
};

/** A tensor of the current backend. On webgpu pieces go straight into its buffer. */
export function tensorWriter(shape: number[], dtype: 'float32' | 'int32', name: string, opName: string): TensorWriter {
  return getBackend() === 'webgpu' ? bufferWriter(shape, dtype, name, opName) : arrayWriter(shape, dtype);
}

function arrayWriter(shape: number[], dtype: 'float32' | 'int32'): TensorWriter {
  const size = util.sizeFromShape(shape);
  let values: HostArray | undefined = dtype === 'float32' ? new Float32Array(size) : new Int32Array(size);
  return {
    write: (at, piece) => values!.set(piece, at),
    finish: () => tensor(values!, shape, dtype),
    dispose: () => {
      values = undefined;
    },
  };
}

function bufferWriter(shape: number[], dtype: 'float32' | 'int32', name: string, opName: string): TensorWriter {
  const webgpu = backend() as WebGPUBackend;
  assertBindable(webgpu, opName, {[name]: shape}, () => ' Ask for several tensors by expertsPerTensor.');
  const info: TensorInfo = webgpu.makeTensorInfo(shape, dtype);
  // Without values the buffer is made and stays as it is.
  webgpu.uploadToGPU(info.dataId);
  let unfinished: Tensor | undefined = engine().makeTensorFromTensorInfo(info);
  const buffer = webgpu.tensorMap.get(info.dataId).resource as GPUBuffer;
  return {
    write: (at, {buffer: memory, byteOffset, byteLength}) =>
      webgpu.queue.writeBuffer(buffer, 4 * at, memory, byteOffset, byteLength),
    finish: () => {
      const finished = unfinished!;
      unfinished = undefined;
      return finished;
    },
    dispose: () => unfinished?.dispose(),
  };
}
