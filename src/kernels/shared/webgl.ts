/**
 * Runs GLSL of this package inside tfjs's WebGL backend: in its texture pool, with its program cache and its timers.
 *
 * A draw computes each element of one tensor by lookups in others; there is no scatter, and what a pooled texture
 * held before is still in it. Sizes are uniforms and the code is fixed, so that other shapes run the same program;
 * tfjs alone adds variants, for axes of size 1 and for tensors that are folded into a texture.
 */
import {env, type TensorInfo, util} from '@tensorflow/tfjs-core';
import type {GPGPUProgram, MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {MoeKernelName, MoeKernels} from '../../contract/kernel_names';
import {runningOpName} from '../../contract/op_name';
import {gpuKernel} from './gpu_kernel';
import {LAST_START_GLSL} from './last_start';
import type {MoeKernel, OutputsAs} from './moe_kernel';
import {drawFrom, webglRecorder} from './webgl_steps';

export {constantTensor, disposeAll, isPacked, prepare} from './webgl_steps';

export type GlslProgram = {
  /** The name of the draw, which labels its time in tf.profile. */
  name: string;
  /**
   * Tensors of rank 1 or 2, none of them empty. With rank 3 and an axis of 1, tfjs could run the program of a tensor
   * that is not folded on a tensor that is. The code reads an input `keys` by getKeys(…), with one index for each axis.
   */
  inputs: Record<string, TensorInfo>;
  /**
   * Tensors whose textures the code reads by texelFetch alone, whatever is packed: one element a texel in the order of
   * elements, or a word in the bytes of a texel. For an input `keys` tfjs sets `ivec2 keysTexShape`, rows and columns
   * of the texture, and `int offsetkeys`, the index of the first element.
   */
  raw?: Record<string, TensorInfo>;
  /** int in the code. */
  uniforms: Record<string, number>;
  output: {shape: number[]; dtype: 'float32' | 'int32'};
  /**
   * Whether texels hold 2 x 2 elements: of the output, or of the inputs too, all of rank 2 then, for the same reason.
   * Otherwise they hold one.
   */
  packed?: 'output' | 'inputs and output';
  /** GLSL with `void main()`, which calls setOutput; it may depend on nothing but the name. */
  code: string;
};

/** A kernel of the webgl backend, typed by its name. */
export function webglKernel<K extends MoeKernelName>(
  kernelName: K,
  run: (
    backend: MathBackendWebGL,
    inputs: MoeKernels[K]['inputs'],
    attrs: MoeKernels[K]['attrs'],
  ) => OutputsAs<K, TensorInfo>,
): MoeKernel {
  const kernel = gpuKernel<MathBackendWebGL, K>(kernelName, (backend, inputs, attrs) =>
    webglRecorder.run(backend, kernelName, inputs, attrs, () => {
      assertWebGL2(kernelName);
      return run(backend, inputs, attrs);
    }),
  );
  // Backends on tfjs's own context have one cache of programs, and tfjs deletes them all with any of these backends.
  return {...kernel, disposeFunc: () => webglRecorder.forgetAll()};
}

/** Without this, WebGL 1 would fail in the middle of the work. */
function assertWebGL2(kernelName: string): void {
  const version = env().getNumber('WEBGL_VERSION');
  util.assert(
    version === 2,
    () => `Error in ${runningOpName(kernelName)}: the webgl backend must run on WebGL 2, but runs on WebGL ${version}.`,
  );
}

/**
 * GLSL: the integer that an element of an int32 tensor stands for. Some ops of tfjs leave it a little beside. From
 * 2^23 on every float is an integer, and adding a half would round it to an even one.
 */
const INDEX_OF = `
  int indexOf(float value) {
    return int(abs(value) < 8388608.0 ? floor(value + 0.5) : clamp(value, -16777216.0, 16777216.0));
  }
`;

/**
 * GLSL: of `numExperts` experts from `firstExpert` on, the one that has a row by the offsets `offset`, counted from the
 * first; -1 where none has.
 */
export const EXPERT_OF_ROW = `
  int offsetOf(int expert) { return indexOf(getOffset(expert)); }
  int startOf(int expert) { return offsetOf(expert); }
  ${LAST_START_GLSL}
  int expertOfRow(int row) {
    int end = firstExpert + numExperts;
    if (row < offsetOf(firstExpert) || row >= offsetOf(end)) { return -1; }
    return lastStart(row, firstExpert, end) - firstExpert;
  }`;

export function runGlsl(backend: MathBackendWebGL, program: GlslProgram): TensorInfo {
  const {name, inputs, raw = {}, uniforms, output, packed, code} = program;
  const all = {...inputs, ...raw};
  const gpgpuProgram = {
    variableNames: Object.keys(all),
    outputShape: output.shape,
    enableShapeUniforms: true,
    customUniforms: Object.keys(uniforms).map((uniform) => ({name: uniform, type: 'int'})),
    packedInputs: packed === 'inputs and output',
    packedOutput: packed != null,
    userCode: INDEX_OF + code,
    // tfjs labels times by the class of a program, and tells programs apart by it.
    constructor: {name},
  } as GPGPUProgram;
  const tensors = Object.values(all);
  const draw = {
    program: gpgpuProgram,
    shapes: tensors.map(({shape}) => shape),
    dtypes: tensors.map(({dtype}) => dtype),
    isRaw: Object.keys(all).map((input) => input in raw),
    outputDtype: output.dtype,
    uniforms: Object.values(uniforms).map((value) => [value]),
  };
  return drawFrom(backend, draw, tensors);
}

/** A tensor of one value. */
export function fillTensor(
  backend: MathBackendWebGL,
  shape: number[],
  dtype: 'float32' | 'int32',
  value: number,
): TensorInfo {
  return runGlsl(backend, {
    name: 'MoeFill',
    inputs: {},
    uniforms: {value},
    output: {shape, dtype},
    code: 'void main() { setOutput(float(value)); }',
  });
}

/**
 * Asserts that no index, count or label of a kernel is past what a texture holds exactly, in the name of the op that
 * runs it.
 */
export function assertExact(kernelName: string, values: Record<string, number>): void {
  const bits = env().getBool('WEBGL_RENDER_FLOAT32_ENABLED') ? 32 : 16;
  const limit = bits === 32 ? 2 ** 24 : 2048;
  for (const [name, value] of Object.entries(values)) {
    util.assert(
      Math.abs(value) <= limit,
      () =>
        `Error in ${runningOpName(kernelName)}: ${name} must be at most ${limit} in magnitude, past which the ` +
        `${bits}-bit floats of this device's WebGL textures skip integers, but is ${value}.`,
    );
  }
}

/** Asserts that the device's textures hold each tensor of a kernel, in the name of the op that runs it. */
export function assertFits(kernelName: string, tensors: Record<string, number[]>, packed = false): void {
  const maxTextureSize = env().getNumber('WEBGL_MAX_TEXTURE_SIZE');
  const limit = (packed ? 4 : 1) * maxTextureSize ** 2;
  for (const [name, shape] of Object.entries(tensors)) {
    const size = util.sizeFromShape(packed ? shape.map((dim) => 2 * Math.ceil(dim / 2)) : shape);
    util.assert(
      size <= limit,
      () =>
        `Error in ${runningOpName(kernelName)}: ${name} [${shape}] takes ${size} elements of a texture, but this ` +
        `device's hold at most ${limit} (WEBGL_MAX_TEXTURE_SIZE is ${maxTextureSize}).`,
    );
  }
}

/** Asserts that a tensor whose elements a kernel moves is float32. */
export function assertFloat32(kernelName: string, name: string, {dtype}: TensorInfo): void {
  util.assert(
    dtype === 'float32',
    () =>
      `Error in ${runningOpName(kernelName)}: ${name} must be float32 on the webgl backend, whose textures round ` +
      `integers, but is ${dtype}.`,
  );
}
