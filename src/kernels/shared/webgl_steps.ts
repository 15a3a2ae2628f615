/** The steps of a kernel on WebGL: to make tensors, of values or by draws, and to dispose of them. */
import {env, type TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {noteMade} from './gpu_kernel';
import {type Question, Recorder} from './recording';
import {type Draw, runDraw} from './webgl_draw';

export const webglRecorder = new Recorder<MathBackendWebGL>({
  flags: () => {
    const flags = env();
    return [
      flags.getNumber('WEBGL_VERSION'),
      flags.getBool('WEBGL_RENDER_FLOAT32_ENABLED'),
      flags.getNumber('WEBGL_MAX_TEXTURE_SIZE'),
    ];
  },
});

/** A constant: it is uploaded when something on the GPU reads it. */
export function constantTensor(backend: MathBackendWebGL, shape: number[], values: Int32Array): TensorInfo {
  // tfjs hands the array of a tensor on to whoever reads the tensor.
  const making = {run: (on: MathBackendWebGL) => noteMade(on.makeTensorInfo(shape, 'int32', values.slice()))};
  return webglRecorder.step(backend, making, [])!;
}

/** Draws a tensor from these tensors. */
export function drawFrom(backend: MathBackendWebGL, draw: Draw, tensors: readonly TensorInfo[]): TensorInfo {
  const drawing = {run: (on: MathBackendWebGL, given: readonly TensorInfo[]) => runDraw(on, draw, given)};
  return webglRecorder.step(backend, drawing, tensors)!;
}

/** Does what a tensor must have done to it before draws read it. */
export function prepare(
  backend: MathBackendWebGL,
  tensor: TensorInfo,
  run: (backend: MathBackendWebGL, tensor: TensorInfo) => void,
): void {
  const preparing = {
    run: (on: MathBackendWebGL, [given]: readonly TensorInfo[]) => {
      run(on, given);
      return undefined;
    },
  };
  webglRecorder.step(backend, preparing, [tensor]);
}

/** Gives back intermediate tensors. What was drawn from them is drawn first: tfjs keeps their memory until then. */
export function disposeAll(backend: MathBackendWebGL, tensors: readonly TensorInfo[]): void {
  webglRecorder.dispose(backend, tensors);
}

const holdsPacked: Question<MathBackendWebGL> = (backend, {dataId, shape}) => {
  const {texture, isPacked: isTexturePacked} = backend.texData.get(dataId);
  return shape.length === 2 && (texture == null ? env().getBool('WEBGL_PACK') : isTexturePacked === true);
};

/**
 * Whether the elements of a matrix are, or when they are uploaded will be, 2 x 2 in a texel. tfjs converts what a
 * program wants otherwise, a draw that takes as long as ours. An input must be given in its own shape.
 */
export function isPacked(backend: MathBackendWebGL, matrix: TensorInfo): boolean {
  return webglRecorder.ask(backend, matrix, holdsPacked);
}
