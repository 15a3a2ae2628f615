/**
 * Draws of this package in tfjs's WebGL backend.
 *
 * tfjs's runWebGLProgram makes a key of the whole code and sets every uniform for every draw. A WebGL program keeps its
 * uniforms, and they follow from the draw and from the forms of its textures. So a draw that tfjs has run on textures
 * of these forms is repeated without a key, and without uniforms if it was the last of its program.
 */
import {type DataType, env, type TensorInfo, util} from '@tensorflow/tfjs-core';
import type {GPGPUContext, GPGPUProgram, MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {disposeAll, noteMade} from './gpu_kernel';

type TextureData = ReturnType<MathBackendWebGL['getDataInfo']>;

export type Draw = {
  program: GPGPUProgram;
  /** Of the inputs, which the code may take in other shapes than the tensors have. */
  shapes: number[][];
  dtypes: DataType[];
  /** Which of the inputs the code reads by texelFetch alone. */
  isRaw: boolean[];
  outputDtype: 'float32' | 'int32';
  uniforms: number[][];
  /** How tfjs ran it last. */
  last?: LastRun;
};

type CompiledProgram = NonNullable<GPGPUContext['program']>;
type TextureShape = [rows: number, columns: number];

type LastRun = {
  program: CompiledProgram;
  textures: Array<{shape: TextureShape; offset: number}>;
  outputTexture: TextureShape;
  /** All but samplers. They are read once another draw has used the program in between. */
  uniforms?: Array<(gl: WebGLRenderingContext) => void>;
};

/** The last draw of each program, whose uniforms it has. */
const lastDraws = new WeakMap<CompiledProgram, Draw>();

/** What tfjs's backend does not declare as public. */
type DrawState = {activeTimers?: unknown[]; lastGlFlushTime: number};

/** Draws the output from these tensors, in the order of the program's inputs. */
export function runDraw(backend: MathBackendWebGL, draw: Draw, tensors: readonly TensorInfo[]): TensorInfo {
  const converted: TensorInfo[] = [];
  const inputs = tensors.map(({dataId}, i) => {
    const input = {dataId, shape: draw.shapes[i], dtype: draw.dtypes[i]};
    const texels = draw.isRaw[i] ? inElementsOf(backend, input) : inTexelsOf(backend, draw.program, input);
    if (texels !== input) {
      converted.push(texels);
    }
    return texels;
  });
  const last = lastOnSuch(backend, draw, inputs);
  const output = last == null ? runByTfjs(backend, draw, inputs) : repeat(backend, draw, last, inputs);
  disposeAll(backend, converted);
  return output;
}

/** On the device, with as many elements in a texel as the program reads, unless tfjs passes it as a uniform. */
function inTexelsOf(backend: MathBackendWebGL, {packedInputs}: GPGPUProgram, input: TensorInfo): TensorInfo {
  const data = backend.texData.get(input.dataId);
  const isPacked = packedInputs === true;
  if (data.texture == null) {
    if (!isPacked && util.sizeFromShape(input.shape) <= env().getNumber('WEBGL_SIZE_UPLOAD_UNIFORM')) {
      return input;
    }
    if (isPacked) {
      data.isPacked = true;
      data.shape = input.shape;
    }
    backend.uploadToGPU(input.dataId);
  }
  if ((data.isPacked === true) === isPacked) {
    return input;
  }
  return noteMade(isPacked ? backend.packTensor(input) : backend.unpackTensor(input));
}

/** On the device, in a texture of one element a texel in the order of elements, or of words that was made before. */
function inElementsOf(backend: MathBackendWebGL, input: TensorInfo): TensorInfo {
  backend.uploadToGPU(input.dataId);
  return backend.texData.get(input.dataId).isPacked === true ? noteMade(backend.unpackTensor(input)) : input;
}

/**
 * A tensor that has the texture of another one, and is taken for packed if the program takes packed inputs: tfjs would
 * convert the texture otherwise.
 */
function standInFor(backend: MathBackendWebGL, {packedInputs}: GPGPUProgram, {dataId, dtype}: TensorInfo): TensorInfo {
  const {texture, texShape, usage, slice} = backend.texData.get(dataId);
  const standIn = backend.makeTensorInfo(texShape!, dtype);
  const data = backend.texData.get(standIn.dataId);
  Object.assign(data, {texture, texShape, usage, slice, isPacked: packedInputs === true});
  return standIn;
}

/** Disposes of a stand-in, and not of the texture of the other tensor. */
function dismiss(backend: MathBackendWebGL, standIn: TensorInfo, {dataId}: TensorInfo): void {
  const data = backend.texData.get(standIn.dataId);
  if (data.texture === backend.texData.get(dataId).texture) {
    Object.assign(data, {texture: null, slice: null});
  }
  backend.disposeData(standIn.dataId);
}

function runByTfjs(backend: MathBackendWebGL, draw: Draw, inputs: TensorInfo[]): TensorInfo {
  const {program, outputDtype, uniforms, isRaw} = draw;
  // A packed result stays packed, whatever tfjs does with results of its own.
  const isPacked = program.packedOutput === true;
  const given = inputs.map((input, i) => (isRaw[i] ? standInFor(backend, program, input) : input));
  let output: TensorInfo;
  try {
    output = noteMade(backend.runWebGLProgram(program, given, outputDtype, uniforms, isPacked));
  } finally {
    inputs.forEach((input, i) => {
      if (isRaw[i]) {
        dismiss(backend, given[i], input);
      }
    });
  }
  const compiled = backend.gpgpu.program;
  if (compiled != null && util.sizeFromShape(output.shape) > 0 && !env().getBool('ENGINE_COMPILE_ONLY')) {
    lastDraws.set(compiled, draw);
    const textures = inputs.map(({dataId, shape}) => textureOf(backend.texData.get(dataId), shape));
    // Of a uniform, or of a packed tensor that tfjs converts to another shape, there is no texture to be repeated on.
    draw.last = textures.includes(undefined)
      ? undefined
      : {
          program: compiled,
          textures: textures as LastRun['textures'],
          outputTexture: backend.texData.get(output.dataId).texShape!,
        };
  }
  return output;
}

/** Undefined if a program that reads the shape cannot read the texture as it is. */
function textureOf(data: TextureData, shape: number[]): LastRun['textures'][number] | undefined {
  const {texture, texShape, isPacked, slice} = data;
  if (texture == null || texShape == null || (isPacked === true && !packsAlike(data.shape, shape))) {
    return undefined;
  }
  return {shape: texShape, offset: slice?.flatOffset ?? 0};
}

/** Whether texels of 2 x 2 elements are the same for both shapes, one after the other. */
function packsAlike(shape: number[], other: number[]): boolean {
  const [rows, columns] = shape.slice(-2);
  const [otherRows, otherColumns] = other.slice(-2);
  return columns === otherColumns && (rows === otherRows || (rows % 2 === 0 && otherRows % 2 === 0));
}

/** The last run, if it was on textures like these. */
function lastOnSuch(backend: MathBackendWebGL, {last}: Draw, inputs: readonly TensorInfo[]): LastRun | undefined {
  // tfjs times its programs, and ours with them.
  const isTimed = (backend as unknown as DrawState).activeTimers != null;
  if (last == null || isTimed || env().getBool('ENGINE_COMPILE_ONLY')) {
    return undefined;
  }
  for (let i = 0; i < inputs.length; i++) {
    const data = backend.texData.get(inputs[i].dataId);
    const {texture, texShape, isPacked, slice} = data;
    const {shape, offset} = last.textures[i];
    if (
      texture == null ||
      texShape![0] !== shape[0] ||
      texShape![1] !== shape[1] ||
      (slice?.flatOffset ?? 0) !== offset ||
      (isPacked === true && !packsAlike(data.shape, inputs[i].shape))
    ) {
      return undefined;
    }
  }
  return last;
}

function repeat(backend: MathBackendWebGL, draw: Draw, last: LastRun, inputs: TensorInfo[]): TensorInfo {
  const isDisplaced = lastDraws.get(last.program) !== draw;
  if (isDisplaced && last.uniforms == null) {
    const output = runByTfjs(backend, draw, inputs);
    draw.last!.uniforms = uniformsOf(backend.gpgpu.gl, last.program);
    return output;
  }
  const {gpgpu, texData} = backend;
  const {gl} = gpgpu;
  const {outputShape, packedOutput} = draw.program;
  const output = noteMade(backend.makeTensorInfo(outputShape, draw.outputDtype));
  const data = texData.get(output.dataId);
  data.isPacked = packedOutput;
  data.texShape = last.outputTexture;
  backend.uploadToGPU(output.dataId);
  const {texture} = data.texture!;
  const [rows, columns] = last.outputTexture;
  if (packedOutput === true) {
    gpgpu.setOutputPackedMatrixTexture(texture, rows, columns);
  } else {
    gpgpu.setOutputMatrixTexture(texture, rows, columns);
  }
  gpgpu.setProgram(last.program);
  gpgpu.bindVertexArray(last.program.vao);
  if (isDisplaced) {
    last.uniforms!.forEach((set) => set(gl));
    lastDraws.set(last.program, draw);
  }
  // tfjs has the i-th input at the i-th texture unit.
  for (let i = 0; i < inputs.length; i++) {
    gl.activeTexture(gl.TEXTURE0 + i);
    gl.bindTexture(gl.TEXTURE_2D, texData.get(inputs[i].dataId).texture!.texture);
  }
  gpgpu.executeProgram();
  flush(backend);
  return output;
}

/** The uniforms that the program has. tfjs does not tell how it computes those of shapes. */
function uniformsOf(gl: WebGLRenderingContext, program: WebGLProgram): LastRun['uniforms'] {
  const numUniforms = gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS) as number;
  return Array.from({length: numUniforms}, (_, i) => gl.getActiveUniform(program, i)!)
    .filter(({type}) => type !== gl.SAMPLER_2D)
    .map(({name, type}) => {
      const location = gl.getUniformLocation(program, name);
      const value: unknown = gl.getUniform(program, location!);
      switch (type) {
        case gl.FLOAT:
          return (on) => on.uniform1f(location, value as number);
        case gl.INT:
          return (on) => on.uniform1i(location, value as number);
        case gl.INT_VEC2:
          return (on) => on.uniform2iv(location, value as Int32Array);
        default:
          throw new Error(`The uniform ${name} has the type ${type}, which no draw of tensors of rank 1 or 2 has.`);
      }
    });
}

/** As often as tfjs does after its programs. */
function flush(backend: MathBackendWebGL): void {
  const threshold = env().getNumber('WEBGL_FLUSH_THRESHOLD');
  if (threshold > 0) {
    const state = backend as unknown as DrawState;
    const time = util.now();
    if (time - state.lastGlFlushTime > threshold) {
      backend.gpgpu.gl.flush();
      state.lastGlFlushTime = time;
    }
  }
}
