/**
 * npm run shaders -- [kernel …] [--backend webgpu|webgl]
 *
 * Prints every shader program of the kernels that are named, such as MoeTopK, or of all: as many variants as a kernel
 * has. No GPU is needed: the kernels run on a stand-in for the backend, which takes the programs and runs none.
 */
import {float32Encoding} from '../src/contract/quantized_weights';
import {parseArgs} from 'node:util';
import {env, type TensorInfo, util} from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-webgl';
import '@tensorflow/tfjs-backend-webgpu/dist/flags_webgpu';
import type {MoeKernelName, MoeKernels} from '../src/contract/kernel_names';
import {
  encodingOf,
  type QuantizedFormat,
  quantizedFormats,
  quantizedShapes,
  type ScaleFormat,
} from '../src/contract/quantized_weights';
import type {MoeKernel} from '../src/kernels/shared/moe_kernel';
import {webglKernels} from '../src/kernels/webgl';
import {webgpuKernels} from '../src/kernels/webgpu';

type Program = {name: string; code: string};
type StandIn = {programs: Program[]; backend: object};
type KernelCall<K extends MoeKernelName> = {inputs: MoeKernels[K]['inputs']; attrs: MoeKernels[K]['attrs']};
type KernelCalls = {[K in MoeKernelName]: Array<KernelCall<K>>};

const tensorOf = (dtype: 'float32' | 'int32', shape: number[]): TensorInfo => ({dataId: {}, dtype, shape});
const floats = (...shape: number[]) => tensorOf('float32', shape);
const ints = (...shape: number[]) => tensorOf('int32', shape);

const permuteAttrs: MoeKernels['MoePermute']['attrs'] = {
  numExperts: 8,
  numLocalExperts: 8,
  alignBlockSize: 0,
  fillInvalidExpert: -1,
  padding: 'zero',
};
const lastToken = {...permuteAttrs, padding: 'lastToken', alignBlockSize: 4} as const;
/** More experts than the sort of one launch has keys for. */
const manyExperts = {numExperts: 1000, numLocalExperts: 1000};
const alignAttrs = {blockSize: 4, numExperts: 8, padSortedIds: false, ignoreInvalidExperts: false};
const slots = (numTokens: number, topk: number) => ({
  invPermutedIdx: ints(numTokens, topk),
  expertFirstTokenOffset: ints(9),
});
const matMulAttrs: MoeKernels['MoeGroupedMatMul']['attrs'] = {
  weightFormat: 'outIn',
  encoding: float32Encoding,
  numParts: 1,
  activation: 'silu',
  gated: true,
  gateUp: 'concatenated',
  swigluAlpha: 1.702,
  swigluLimit: 7,
};
const matMul = (numRows: number, numIn: number, weights: TensorInfo) => ({
  x: floats(numRows, numIn),
  expertFirstTokenOffset: ints(9),
  weights0: weights,
});
const topkAttrs: MoeKernels['MoeTopK']['attrs'] = {
  topk: 2,
  scoring: 'softmax',
  renormalize: true,
  numExpertGroups: 1,
  topkGroups: 1,
  routedScalingFactor: 1,
};

const encoding = (format: QuantizedFormat, scaleFormat: ScaleFormat, zeroPoint = 0, hasOffsets = false) => {
  const groupSize = quantizedFormats[format].hasScales ? 32 : 0;
  return encodingOf({format, groupSize, scaleFormat, zeroPoint, hasOffsets});
};
const encodings = [
  encoding('int4', 'float16', 8),
  encoding('int4', 'float32', 0, true),
  encoding('int8', 'bfloat16', 128),
  encoding('fp4', 'e8m0'),
  encoding('float8', 'float32'),
  encoding('float16', 'float32'),
  encoding('bfloat16', 'float32'),
];

/** A step of two sequences: 4 heads of queries, 2 of keys and values, and room for 9 positions. */
const cachedHeads = (headDim: number) => ({
  queries: floats(2, 1, 4 * headDim),
  position: ints(1),
  cachedKeys: floats(2, 2, 9, headDim),
  cachedValues: floats(2, 2, 9, headDim),
});

/** By kernel, a call for each way that it takes: few and many assignments, rows of fours and others, and so on. */
const calls: KernelCalls = {
  MoeRmsNorm: [7, 8].map((size) => ({inputs: {x: floats(5, size), gamma: floats(size)}, attrs: {epsilon: 1e-6}})),
  MoeRotateIntoCache: [
    {
      inputs: {...cachedHeads(8), keys: floats(2, 1, 16), values: floats(2, 1, 16), angles: floats(9, 8)},
      attrs: {scale: 1},
    },
  ],
  MoeCachedAttention: [6, 8].flatMap((headDim) =>
    [{}, {sinks: floats(4)}, {keyMask: floats(2, 9)}].map((optional) => ({
      inputs: {...cachedHeads(headDim), ...optional},
      attrs: {slidingWindow: null},
    })),
  ),
  MoeProjections: [
    {inputs: {x: floats(1, 6), weights0: floats(6, 8)}, attrs: {}},
    {inputs: {x: floats(3, 6), weights0: floats(6, 7), weights1: floats(6, 8), weights2: floats(6, 8)}, attrs: {}},
  ],
  MoeScaledSum: [{inputs: {a: floats(6), b: floats(6)}, attrs: {factorA: 1, factorB: 0.5}}],
  MoePermute: [7, 8, 4000, 4001].flatMap((size) => {
    const numTokens = size > 8 ? 8192 : 5;
    const inputs = {hiddenStates: floats(numTokens, size % 2 === 0 ? 8 : 7), topkIds: ints(numTokens, 2)};
    const expertMap = ints(8);
    return [
      {inputs, attrs: permuteAttrs},
      {inputs: {...inputs, expertMap}, attrs: permuteAttrs},
      {inputs: {...inputs, expertMap, a1qScale: floats(numTokens, 3)}, attrs: lastToken},
      {inputs: {...inputs, expertMap: ints(1000)}, attrs: {...permuteAttrs, ...manyExperts}},
    ];
  }),
  MoeAlignBlockSize: [5, 8192].flatMap((numTokens) => {
    const inputs = {topkIds: ints(numTokens, 2)};
    const expertMap = ints(8);
    return [
      {inputs, attrs: alignAttrs},
      {inputs: {...inputs, expertMap}, attrs: alignAttrs},
      {inputs: {...inputs, expertMap}, attrs: {...alignAttrs, ignoreInvalidExperts: true}},
      {inputs, attrs: {...alignAttrs, numExperts: 1000}},
    ];
  }),
  MoeUnpermute: [7, 8].flatMap((size) =>
    [2, 9].map((topk) => ({
      inputs: {permutedHiddenStates: floats(10, size), topkWeights: floats(5, topk), ...slots(5, topk)},
      attrs: {},
    })),
  ),
  MoeUnpermuteBackpropRows: [7, 8].flatMap((size) =>
    [{}, {permutedIdx: ints(10)}].map((permutedIdx) => ({
      inputs: {dy: floats(5, size), topkWeights: floats(5, 2), ...slots(5, 2), ...permutedIdx},
      attrs: {numRows: 10},
    })),
  ),
  MoeUnpermuteBackpropWeights: [7, 8, 512].map((size) => ({
    inputs: {dy: floats(5, size), permutedHiddenStates: floats(10, size), ...slots(5, 2)},
    attrs: {},
  })),
  MoeRankRows: [{inputs: {values: floats(10), expertFirstTokenOffset: ints(9)}, attrs: {}}],
  MoeSum: [7, 8].map((size) => ({inputs: {x: floats(5, 2, size)}, attrs: {}})),
  MoeGroupedMatMul: [16, 4096].flatMap((numRows) =>
    [32, 7].flatMap((size) => [
      {inputs: matMul(numRows, size, floats(8, 64, size)), attrs: matMulAttrs},
      {
        inputs: {...matMul(numRows, size, floats(8, size, 64)), bias: floats(8, 64)},
        attrs: {...matMulAttrs, weightFormat: 'inOut'},
      },
    ]),
  ),
  MoeExpertsUp: [16, 4096].map((numRows) => ({
    inputs: {...matMul(numRows / 2, 32, floats(8, 64, 32)), permutedIdx: ints(numRows), ...slots(numRows / 2, 2)},
    attrs: matMulAttrs,
  })),
  // Made of other kernels.
  MoeExpertsDown: [],
  MoeExpertsDownBackprop: [
    {inputs: {g: floats(10, 4), z: floats(10, 8), topkWeights: floats(5, 2), ...slots(5, 2)}, attrs: matMulAttrs},
  ],
  MoeActivate: [{inputs: {z: floats(10, 8)}, attrs: matMulAttrs}],
  MoeGroupedMatMulBackpropActivation: [{inputs: {dy: floats(10, 4), z: floats(10, 8)}, attrs: matMulAttrs}],
  MoeGroupedMatMulBackpropWeights: [7, 8].flatMap((size) =>
    [10, 4096].map((numRows) => ({
      inputs: {a: floats(numRows, size), b: floats(numRows, 2 * size), expertFirstTokenOffset: ints(9)},
      attrs: {firstExpert: 0, numExperts: 8},
    })),
  ),
  MoeTopK: [8, 4000].flatMap((numExperts) => {
    const inputs = {routerLogits: floats(5, numExperts)};
    const scoreCorrectionBias = floats(numExperts);
    return [
      {inputs, attrs: topkAttrs},
      {inputs, attrs: {...topkAttrs, numExpertGroups: 2}},
      {inputs: {...inputs, scoreCorrectionBias}, attrs: {...topkAttrs, scoring: 'sigmoid', numExpertGroups: 2}},
    ];
  }),
  MoeFusedExperts: (['outIn', 'inOut'] as const).flatMap((weightFormat) =>
    [7, 8].flatMap((size) => {
      const {numParts: _, encoding, ...activation} = matMulAttrs;
      const isOutIn = weightFormat === 'outIn';
      const inputs = {
        x: floats(1, size),
        topkWeights: floats(1, 2),
        topkIds: ints(1, 2),
        w1: isOutIn ? floats(8, 16, size) : floats(8, size, 16),
        w2: isOutIn ? floats(8, size, 8) : floats(8, 8, size),
      };
      return [inputs, {...inputs, expertMap: ints(8)}].map((given) => ({
        inputs: given,
        attrs: {...activation, weightFormat, w1Encoding: encoding, w2Encoding: encoding},
      }));
    }),
  ),
  MoeTopKBackprop: [true, false].map((renormalize) => ({
    inputs: {dTopkWeights: floats(5, 2), routerLogits: floats(5, 8), topkIds: ints(5, 2)},
    attrs: {...topkAttrs, renormalize},
  })),
  MoeRouterProbabilities: [{inputs: {routerLogits: floats(5, 8)}, attrs: {scoring: 'sigmoid'}}],
  MoeQuantizeWeights: encodings.map((encoding) => ({inputs: {weights: floats(2, 4, 64)}, attrs: {encoding}})),
  MoeDequantizeWeights: encodings.map((encoding) => {
    const shapes = quantizedShapes([2, 4, 64], encoding);
    const scales = encoding.scaleFormat === 'float32' ? floats(...shapes.scales) : ints(...shapes.scales);
    return {
      inputs: {
        codes: ints(...shapes.codes),
        ...(encoding.groupSize > 0 && {scales}),
        ...(encoding.hasOffsets && {offsets: scales}),
      },
      attrs: {encoding, firstExpert: 0, numExperts: 2},
    };
  }),
};

const webgpuStandIn = (): StandIn => {
  Object.assign(globalThis, {GPUBufferUsage: {UNIFORM: 64}});
  const programs: Program[] = [];
  const device = {
    limits: {maxBufferSize: 2 ** 40, maxStorageBufferBindingSize: 2 ** 40, maxComputeWorkgroupsPerDimension: 65535},
    lost: new Promise(() => {}),
    createShaderModule: ({label = '', code}: GPUShaderModuleDescriptor) => {
      programs.push({name: label, code});
      return {getCompilationInfo: async () => ({messages: []})};
    },
    createComputePipeline: () => ({getBindGroupLayout: () => ({})}),
    createBuffer: ({size}: GPUBufferDescriptor) => ({getMappedRange: () => new ArrayBuffer(size), unmap: () => {}}),
    createBindGroup: () => ({}),
  };
  const pass = {setPipeline: () => {}, setBindGroup: () => {}, dispatchWorkgroups: () => {}};
  const backend = {
    device,
    commandQueueOwnedIds: new WeakSet(),
    computePassEncoder: pass,
    dispatchCountInPass: 0,
    tensorMap: {get: () => ({dtype: 'float32', resource: {}})},
    uploadToGPU: () => {},
    ensureCommandEncoderReady: () => {},
    endComputePassEncoder: () => {},
    submitQueue: () => {},
    makeTensorInfo: (shape: number[], dtype: 'float32' | 'int32') => tensorOf(dtype, shape),
    disposeData: () => {},
  };
  return {programs, backend};
};

const webglStandIn = (): StandIn => {
  const programs: Program[] = [];
  type GlslProgram = {userCode: string; outputShape: number[]; constructor: {name: string}};
  let packed = false;
  const gl = {isContextLost: () => false, isBuffer: () => true, isFramebuffer: () => true, canvas: new EventTarget()};
  const backend = {
    gpgpu: {gl, program: null},
    texData: {get: () => ({texture: {}, isPacked: packed, usage: 2, values: new Int32Array(1), texShape: [1, 1]})},
    packTensor: (tensor: TensorInfo) => tensor,
    unpackTensor: (tensor: TensorInfo) => tensor,
    runWebGLProgram: ({userCode, outputShape, constructor}: GlslProgram, _: unknown, dtype: 'float32' | 'int32') => {
      programs.push({name: constructor.name, code: userCode});
      return tensorOf(dtype, outputShape);
    },
    makeTensorInfo: (shape: number[], dtype: 'float32' | 'int32') => tensorOf(dtype, shape),
    disposeIntermediateTensorInfo: () => {},
    readSync: () => new Float32Array(0),
    write: () => ({}),
    disposeData: () => {},
    /** Every kernel runs twice: on textures of one element a texel, and on packed ones. */
    pack: () => (packed = true),
  };
  return {programs, backend};
};

function programsOf(kernelName: MoeKernelName, backendName: string): Program[] {
  const isWebGL = backendName === 'webgl';
  const {programs, backend} = isWebGL ? webglStandIn() : webgpuStandIn();
  // Not every kernel has programs on both.
  const kernels: Partial<Record<MoeKernelName, MoeKernel>> = isWebGL ? webglKernels : webgpuKernels;
  const run = () =>
    (calls[kernelName] as Array<{inputs: object; attrs: object}>).forEach(({inputs, attrs}) =>
      kernels[kernelName]?.kernelFunc({inputs: inputs as never, attrs: attrs as never, backend}),
    );
  run();
  if (isWebGL) {
    (backend as ReturnType<typeof webglStandIn>['backend'] & {pack: () => void}).pack();
    run();
  }
  const different = new Map(programs.map((program) => [program.code, program]));
  return [...different.values()];
}

/** GLSL is written inside TypeScript, and indented as it is. */
function outdent(code: string): string {
  const lines = code.replace(/^\n+|\s+$/g, '').split('\n');
  const indents = lines.filter((line) => line.trim() !== '').map((line) => line.length - line.trimStart().length);
  const indent = Math.min(...indents);
  return lines.map((line) => line.slice(indent)).join('\n');
}

function main(): void {
  const {values: flags, positionals} = parseArgs({
    allowPositionals: true,
    options: {backend: {type: 'string', default: 'webgpu'}},
  });
  const known = Object.keys(calls) as MoeKernelName[];
  const unknown = positionals.find((name) => !known.some((kernelName) => kernelName === name));
  util.assert(unknown == null, () => `There is no kernel '${unknown}'. There are ${known.join(', ')}.`);
  util.assert(
    ['webgpu', 'webgl'].includes(flags.backend),
    () => `--backend must be webgpu or webgl, but is '${flags.backend}'.`,
  );
  // The flag of tfjs-backend-webgpu, which is not loaded here.
  env().set('WEBGL_VERSION', 2);
  env().set('WEBGL_MAX_TEXTURE_SIZE', 2 ** 20);
  env().set('WEBGL_RENDER_FLOAT32_ENABLED', true);
  for (const kernelName of positionals.length > 0 ? (positionals as MoeKernelName[]) : known) {
    const programs = programsOf(kernelName, flags.backend);
    programs.forEach(({name, code}, i) => {
      console.log(
        `// ${kernelName} on ${flags.backend}, program ${i + 1} of ${programs.length}: ${name}\n${outdent(code)}\n`,
      );
    });
  }
}

main();
