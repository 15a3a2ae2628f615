import {
  clone,
  dispose,
  io,
  squeeze,
  Tensor,
  tensor,
  type Tensor1D,
  type Tensor2D,
  type TensorLike,
  tidy,
  zeros,
} from '@tensorflow/tfjs-core';
import type {WeightTensors} from '../contract/expert_weights';
import {hostValuesOf} from '../contract/host_values';
import type {QuantizedWeights} from '../contract/quantized_weights';
import {
  assert,
  assertRank,
  checkOptions,
  convertToOptionalTensor,
  convertToTensor,
  describeValue,
  isPlainObject,
  shorten,
} from '../arguments/checks';
import {isQuantized} from '../arguments/quantized_weights';
import {activationOptionNames} from '../arguments/experts';
import {convertExperts, describeRouted} from '../arguments/experts';
import {type MoeSharedExperts} from '../arguments/experts';
import type {FusedMoeOptions} from '../ops/fused_moe';
import type {MoeIndices} from '../arguments/routing';
import {chooseExperts} from '../ops/moe_topk';
import {version_moe} from '../version';
import {type AttrJson, boolean, toSnakeCase} from './attr_types';
import {hasAttr} from './graph_node';
import {graphOps} from './graph_ops';
import {quantizedAttrValues} from './quantized_inputs';

export type MoeGraphModelWeights = {
  /** float32 [H, E], or [H, E+Z] with zero experts: routerLogits = hiddenStates . routerKernel + routerBias. */
  routerKernel: Tensor | TensorLike;
  /** float32 [E]. Default: none. */
  routerBias?: Tensor | TensorLike | null;
  /**
   * float32 [L, 2I, H], or quantized, as in fusedExperts, but always in one part: a node of a graph has one input for
   * it. The graph has codes as w1, and then w1_scales and w1_offsets.
   */
  w1: Tensor | TensorLike | QuantizedWeights;
  /** float32 [L, H, I], or quantized, in one part too. */
  w2: Tensor | TensorLike | QuantizedWeights;
  /** float32 [L, 2I]; [L, I] with `gated: false`. Default: none. */
  w1Bias?: Tensor | TensorLike | null;
  /** float32 [L, H]. Default: none. */
  w2Bias?: Tensor | TensorLike | null;
  /** float32 [E], as in moeTopk. Default: none. */
  scoreCorrectionBias?: Tensor | TensorLike | null;
  /** int32 [E], as in fusedExperts. Default: none, E = L. */
  expertMap?: MoeIndices | null;
  /** As in fusedExperts; the graph has them as shared_w1, shared_w2 and shared_gate. Default: none. */
  sharedExperts?: MoeSharedExperts | null;
};

export type MoeGraphModelOptions = Omit<FusedMoeOptions, keyof MoeGraphModelWeights | 'returnRouting'> & {
  /** K, experts per token. */
  topk: number;
};

const opName = 'moeGraphModel';

const weightNames: ReadonlyArray<keyof MoeGraphModelWeights> = [
  'routerKernel',
  'routerBias',
  'w1',
  'w2',
  'w1Bias',
  'w2Bias',
  'scoreCorrectionBias',
  'expertMap',
  'sharedExperts',
];

const optionNames: ReadonlyArray<keyof MoeGraphModelOptions> = [
  'topk',
  'scoring',
  'renormalize',
  'numExpertGroups',
  'topkGroups',
  'sparsemixerJitter',
  'routedScalingFactor',
  ...activationOptionNames,
  'weightFormat',
  'numZeroExperts',
  'applyRouterWeightOnInput',
];

/**
 * A mixture-of-experts block as a GraphModel: the router's matmul and bias, then fusedMoe, with the weights included.
 * It is loaded, run and saved like any GraphModel. It also shows what a converter has to write.
 *
 * ```js
 * // H = 2, E = 2 experts of I = 1, K = 1
 * const weights = {
 *   routerKernel: tf.tensor2d([[0, 1], [1, 0]]), // [H, E]
 *   w1: tf.tensor3d([[[1, 0]], [[0, 1]]]), // [E, I, H]
 *   w2: tf.tensor3d([[[1], [1]], [[10], [10]]]), // [E, H, I]
 * };
 * const artifacts = await tf.moeGraphModel(weights, {topk: 1, renormalize: true, activation: 'relu', gated: false});
 * tf.registerMoeGraphOps();
 * const model = await tf.loadGraphModel(tf.io.fromMemory(artifacts)); // then, say, model.save('indexeddb://moe')
 * const output = model.predict(tf.tensor2d([[1, 2], [4, 3]]));
 * output instanceof tf.Tensor && await output.array(); // => [[1, 1], [30, 30]]
 * ```
 *
 * The result is the model's artifacts, not a loaded model. Artifacts can be stored or sent without a second copy of the
 * weights on the device, nodes can be added to them, and the caller's own tfjs loads them.
 *
 * @param weights  {@link MoeGraphModelWeights}.
 * @param options  {@link MoeGraphModelOptions}: topk, and the other options of fusedMoe that are not tensors.
 * @returns a promise of tf.io.ModelArtifacts. The input is `hidden_states`, float32 [-1, H]; the output is `output`,
 *     float32 [-1, H]. The other nodes are `router_logits` and a Const for each weight, by its name in snake_case; the
 *     weights of sharedExperts are `shared_w1`, `shared_w2` and `shared_gate`. Call registerMoeGraphOps before loading
 *     the artifacts.
 *
 * The values of the weights are read from the device once, in this call. The arguments still belong to the caller.
 *
 * The promise is rejected if a rank, dtype, shape, number or name does not fit, before anything is read.
 */
export async function moeGraphModel(
  weights: MoeGraphModelWeights,
  options: MoeGraphModelOptions,
): Promise<io.ModelArtifacts> {
  // Clones, so that all of them are disposed here, whether a weight was given as a tensor or as an array.
  const tensors = tidy(() => cloneAll(checkWeights(weights, options)));
  try {
    const {data, specs} = await encodeWeights(tensors);
    return {
      format: 'graph-model',
      generatedBy: `tfjs-moe ${version_moe}`,
      convertedBy: null,
      ...topologyOf(specs, {...options, ...encodingAttrs('w1', weights), ...encodingAttrs('w2', weights)}),
      weightSpecs: specs,
      weightData: data,
    };
  } finally {
    dispose(tensors);
  }
}

/** The attrs of quantized weights; none for float32. */
function encodingAttrs(name: 'w1' | 'w2', weights: MoeGraphModelWeights): NodeAttrs {
  const given = weights[name];
  return isQuantized(given) && !Array.isArray(given) ? quantizedAttrValues(name, given) : {};
}

type NodeAttrs = {[name: string]: unknown};
type NamedTensors = {[name: string]: Tensor};

const cloneAll = (tensors: NamedTensors): NamedTensors =>
  Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, clone(tensor)]));

/**
 * Like io.encodeWeights, which fails after tf.cast made float32 in name only: it takes the bytes of integers for
 * floats.
 */
async function encodeWeights(tensors: NamedTensors): ReturnType<typeof io.encodeWeights> {
  const values = await Promise.all(
    Object.values(tensors).map(async (weight) => hostValuesOf(await weight.data(), weight.dtype)),
  );
  const ofTheirDtype = Object.entries(tensors).map(([name, {shape, dtype}], w): [string, Tensor] => [
    name,
    tensor(values[w], shape, dtype),
  ]);
  const encodable = Object.fromEntries(ofTheirDtype);
  try {
    return await io.encodeWeights(encodable);
  } finally {
    dispose(encodable);
  }
}

/** The given weights by their names in the graph, after all checks that need no values. */
function checkWeights(weights: MoeGraphModelWeights, options: MoeGraphModelOptions): NamedTensors {
  assertWeightNames(weights);
  const given = {...checkOptions(options, optionNames, opName), ...weights};
  const routerKernel = convertToTensor(given.routerKernel, 'routerKernel', opName, ['float32']) as Tensor2D;
  assertRank(routerKernel, 'routerKernel', opName, '[H, E]');
  const [hiddenSize, numExperts] = routerKernel.shape;
  assert(
    routerKernel.size > 0,
    opName,
    () => `routerKernel must have at least 1 row (H) and 1 column (E), but is [${routerKernel.shape}].`,
  );
  const experts = convertExperts([-1, hiddenSize], given.w1, given.w2, given, opName);
  assert(
    experts.numExperts + experts.numZeroExperts === numExperts,
    opName,
    () => `routerKernel must be [H, E] with ${describeRouted(experts)}, but is [${routerKernel.shape}].`,
  );
  const scoreCorrectionBias = convertToOptionalTensor(given.scoreCorrectionBias, 'scoreCorrectionBias', opName, [
    'float32',
  ]);
  // A call without tokens, only for its checks.
  chooseExperts(zeros([0, numExperts]), given.topk as number, {...given, scoreCorrectionBias}, opName);
  const {shared} = experts;
  const tensors: {[name: string]: Tensor | undefined} = {
    routerKernel,
    routerBias: convertRouterBias(given.routerBias, numExperts),
    ...namedTensors('w1', experts.w1.parts[0]),
    ...namedTensors('w2', experts.w2.parts[0]),
    w1Bias: experts.w1Bias,
    w2Bias: experts.w2Bias,
    scoreCorrectionBias,
    expertMap: experts.expertMap,
    sharedW1: shared && squeeze(shared.w1.parts[0].weights, [0]),
    sharedW2: shared && squeeze(shared.w2.parts[0].weights, [0]),
    sharedGate: shared?.gate,
  };
  return Object.fromEntries(
    Object.entries(tensors).flatMap(([name, tensor]) => (tensor == null ? [] : [[toSnakeCase(name), tensor]])),
  );
}

const namedTensors = (name: string, {weights, scales, offsets}: WeightTensors<Tensor>) => ({
  [name]: weights,
  [`${name}Scales`]: scales,
  [`${name}Offsets`]: offsets,
});

function assertWeightNames(weights: MoeGraphModelWeights): void {
  const known = weightNames.join(', ');
  assert(
    weights != null && typeof weights === 'object' && !Array.isArray(weights) && !(weights instanceof Tensor),
    opName,
    () => `weights must be an object of ${known}, but is ${describeValue(weights)}.`,
  );
  for (const name of Object.keys(weights)) {
    assert(
      weightNames.some((weightName) => weightName === name),
      opName,
      () => `unknown weight '${shorten(name)}'. The weights are ${known}.`,
    );
  }
  for (const name of ['w1', 'w2'] as const) {
    const parts = weights[name];
    assert(
      !Array.isArray(parts) || !(parts as unknown[]).some((part) => part instanceof Tensor || isPlainObject(part)),
      opName,
      () => `${name} must be one tensor, not a list of tensors: a node of a graph has one input for it.`,
    );
  }
}

function convertRouterBias(bias: Tensor | TensorLike | null | undefined, numExperts: number): Tensor1D | undefined {
  const $bias = convertToOptionalTensor(bias, 'routerBias', opName, ['float32']);
  assert(
    $bias == null || ($bias.rank === 1 && $bias.shape[0] === numExperts),
    opName,
    () =>
      `routerBias must be [E] = [${numExperts}], an entry for each column of routerKernel, but is [${$bias!.shape}].`,
  );
  return $bias as Tensor1D | undefined;
}

type WeightSpecs = NonNullable<io.ModelArtifacts['weightSpecs']>;

const dataTypes: {[dtype: string]: string} = {float32: 'DT_FLOAT', int32: 'DT_INT32'};
const dataType = (dtype: string) => ({type: dataTypes[dtype]});
const tensorShape = (shape: number[]) => ({dim: shape.map((size) => ({size: String(size)}))});

/** The nodes of the graph, and which of them are its input and output. */
function topologyOf(
  weightSpecs: WeightSpecs,
  options: NodeAttrs,
): Pick<io.ModelArtifacts, 'modelTopology' | 'signature'> {
  const names = weightSpecs.map(({name}) => name);
  const kernel = weightSpecs.find(({name}) => name === 'router_kernel')!;
  const rows = tensorShape([-1, kernel.shape[0]]);
  const hasRouterBias = names.includes('router_bias');
  const node = [
    {name: 'hidden_states', op: 'Placeholder', attr: {dtype: dataType('float32'), shape: {shape: rows}}},
    ...weightSpecs.map(({name, shape, dtype}) => ({
      name,
      op: 'Const',
      attr: {
        dtype: dataType(dtype),
        value: {tensor: {dtype: dataTypes[dtype], tensorShape: tensorShape(shape)}},
      },
    })),
    {
      name: hasRouterBias ? 'router_product' : 'router_logits',
      op: 'MatMul',
      input: ['hidden_states', 'router_kernel'],
      attr: {transpose_a: {b: false}, transpose_b: {b: false}, T: dataType('float32')},
    },
    ...(hasRouterBias
      ? [
          {
            name: 'router_logits',
            op: 'BiasAdd',
            input: ['router_product', 'router_bias'],
            attr: {T: dataType('float32')},
          },
        ]
      : []),
    fusedMoeNode(names, options),
  ];
  const endOf = (name: string) => ({name: `${name}:0`, dtype: 'DT_FLOAT', tensorShape: rows});
  return {
    modelTopology: {node, library: {}, versions: {producer: 1}},
    signature: {inputs: {hidden_states: endOf('hidden_states')}, outputs: {output: endOf('output')}},
  };
}

function fusedMoeNode(weightNamesInGraph: string[], options: NodeAttrs) {
  const {inputs, optionalInputs, attrs, optionalAttrs} = graphOps.FusedMoe;
  const present = optionalInputs.filter((name) => weightNamesInGraph.includes(toSnakeCase(name)));
  const attr: {[name: string]: AttrJson} = {};
  for (const name of present) {
    attr[toSnakeCase(hasAttr(name))] = boolean.write(true);
  }
  for (const [name, type] of Object.entries({...attrs, ...optionalAttrs})) {
    const value = options[name];
    if (value != null) {
      attr[toSnakeCase(name)] = type.write(value);
    }
  }
  return {name: 'output', op: 'FusedMoe', input: [...inputs, ...present].map(toSnakeCase), attr};
}
