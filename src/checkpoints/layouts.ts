/**
 * The mixture-of-experts blocks of Hugging Face checkpoints: the names and layouts of their tensors, and how their
 * routers choose. There is one function for each `model_type` of config.json. The source is huggingface/transformers:
 * the modeling files (src/transformers/models/<model_type>/), and conversion_mapping.py, which stacks the tensors of
 * single experts.
 */
import type {MoeActivation, MoeGateUp, MoeTopkScoring} from '../contract/kernel_names';
import {assert, describeValue} from '../arguments/checks';
import {checkActivation, SWIGLU_ALPHA, SWIGLU_LIMIT} from '../arguments/experts';
import {checkRouting} from '../arguments/routing';
import type {WeightName} from '../contract/block_weights';
import {ConfigReader, isInteger, MAX_SIZE, type MoeModelConfig, type Sizes} from './config_reader';

/**
 * Tensors of the checkpoint that must have one shape. Their names are made on request, because there may be millions.
 */
type CheckpointTensors = {
  count: number;
  shape: number[];
  nameOf: (index: number) => string;
};

/**
 * The matrices of a tensor that must be transposed. `gatesFirst`: their columns are gate 0, up 0, gate 1, …, and all
 * gates must be moved before all ups.
 */
export type TransposedMatrices = {rows: number; columns: number; gatesFirst?: boolean};

/** A weight of the block: the concatenation of tensors of the checkpoint. */
export type CheckpointWeight = {
  shape: number[];
  tensors: CheckpointTensors;
  /** So many values are taken from each tensor in turn, until all are taken. Default: all values of a tensor. */
  takenInTurn?: number;
  /** Absent if the values are in the right order already. */
  transposed?: TransposedMatrices;
};

type CheckpointWeights = Partial<Record<WeightName, CheckpointWeight>> &
  Record<'router_kernel' | 'w1' | 'w2', CheckpointWeight>;

/** The options of fusedMoe that config.json decides. */
export type MoeCheckpointRouting = {
  /** How logits become scores, as in moeTopk. */
  scoring: MoeTopkScoring;
  /** Whether the K weights are divided by their sum. */
  renormalize: boolean;
  /** The number of groups of experts, if the family chooses in groups. */
  numExpertGroups?: number;
  /** The number of groups from which experts are chosen. Present with numExpertGroups. */
  topkGroups?: number;
  /** The factor of the weights, if it is not 1. */
  routedScalingFactor?: number;
  /** As in moeGroupedMatMul. */
  activation: MoeActivation;
  /** The order of gates and ups in w1, if it is not the activation's default. */
  gateUp?: MoeGateUp;
  /** Alpha of `'swigluOai'`. */
  swigluAlpha?: number;
  /** Limit of `'swigluOai'`. */
  swigluLimit?: number;
};

export type CheckpointLayout = Sizes & {
  /** The width of the shared experts, which count as one expert; 0 without shared experts. */
  sharedIntermediateSize: number;
  topk: number;
  weights: CheckpointWeights;
  routing: MoeCheckpointRouting;
};

/**
 * The block in its checkpoint: how its tensors' names begin, such as 'model.layers.3.', and which tensors there are.
 */
type CheckpointBlock = {
  at: string;
  hasTensor: (name: string) => boolean;
};

type LayoutOf = (config: ConfigReader, block: CheckpointBlock) => CheckpointLayout;

const weight = (shape: number[], tensors: CheckpointTensors, transposed?: TransposedMatrices): CheckpointWeight => ({
  shape,
  tensors,
  transposed,
});

const named = (shape: number[], ...names: string[]): CheckpointTensors => ({
  count: names.length,
  shape,
  nameOf: (index) => names[index],
});

/** [out, in] as in torch.nn.Linear, by the first of `names` that the checkpoint has, or by the first of all. */
function routerKernel({numExperts, hiddenSize}: Sizes, {at, hasTensor}: CheckpointBlock, ...names: string[]) {
  const paths = names.map((name) => at + name);
  const tensors = named([numExperts, hiddenSize], paths.find(hasTensor) ?? paths[0]);
  return weight([hiddenSize, numExperts], tensors, {rows: numExperts, columns: hiddenSize});
}

type ExpertTensors = {w1: CheckpointTensors; w2: CheckpointTensors};

/** Three tensors for each expert: `<path>.<expert>.<gate, up or down>.weight`. */
function tensorsPerExpert(path: string, [gate, up, down]: [string, string, string], sizes: Sizes): ExpertTensors {
  const {numExperts, hiddenSize, intermediateSize} = sizes;
  return {
    w1: {
      count: 2 * numExperts,
      shape: [intermediateSize, hiddenSize],
      nameOf: (index) => `${path}.${index >> 1}.${index % 2 === 0 ? gate : up}.weight`,
    },
    w2: {
      count: numExperts,
      shape: [hiddenSize, intermediateSize],
      nameOf: (expert) => `${path}.${expert}.${down}.weight`,
    },
  };
}

/** Two tensors for all experts, with a row for each output. */
function stackedTensors(w1: string, w2: string, {numExperts, hiddenSize, intermediateSize}: Sizes): ExpertTensors {
  return {
    w1: named([numExperts, 2 * intermediateSize, hiddenSize], w1),
    w2: named([numExperts, hiddenSize, intermediateSize], w2),
  };
}

/** `stacked` if the checkpoint has one of its tensors, else `usual`. */
function expertWeights(sizes: Sizes, {hasTensor}: CheckpointBlock, usual: ExpertTensors, stacked: ExpertTensors) {
  const {numExperts, hiddenSize, intermediateSize} = sizes;
  const isStacked = hasTensor(stacked.w1.nameOf(0)) || hasTensor(stacked.w2.nameOf(0));
  const {w1, w2} = isStacked ? stacked : usual;
  return {
    w1: weight([numExperts, 2 * intermediateSize, hiddenSize], w1),
    w2: weight([numExperts, hiddenSize, intermediateSize], w2),
  };
}

/** One gated expert for all tokens; `w1` names its gate and its up, or one tensor with both. */
function sharedExpert(w1: string[], w2: string, hiddenSize: number, sharedSize: number) {
  return {
    shared_w1: weight([2 * sharedSize, hiddenSize], named([(2 * sharedSize) / w1.length, hiddenSize], ...w1)),
    shared_w2: weight([hiddenSize, sharedSize], named([hiddenSize, sharedSize], w2)),
  };
}

const sharedProjections = (path: string, hiddenSize: number, sharedSize: number) =>
  sharedExpert(
    [`${path}.gate_proj.weight`, `${path}.up_proj.weight`],
    `${path}.down_proj.weight`,
    hiddenSize,
    sharedSize,
  );

/** MixtralSparseMoeBlock: w1 is the gate, w3 the up, w2 the down. */
const mixtral: LayoutOf = (config, block) => {
  const {at} = block;
  const sizes = config.sizes('num_local_experts', 'intermediate_size');
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, 'block_sparse_moe.gate.weight', 'mlp.gate.weight'),
      ...expertWeights(
        sizes,
        block,
        tensorsPerExpert(`${at}block_sparse_moe.experts`, ['w1', 'w3', 'w2'], sizes),
        stackedTensors(`${at}mlp.experts.gate_up_proj`, `${at}mlp.experts.down_proj`, sizes),
      ),
    },
    routing: {scoring: 'softmax', renormalize: true, activation: config.activation()},
  };
};

/** The projections that Qwen-MoE, OLMoE and DeepSeek share. */
function projections(block: CheckpointBlock, sizes: Sizes) {
  const path = `${block.at}mlp.experts`;
  return {
    router_kernel: routerKernel(sizes, block, 'mlp.gate.weight'),
    ...expertWeights(
      sizes,
      block,
      tensorsPerExpert(path, ['gate_proj', 'up_proj', 'down_proj'], sizes),
      stackedTensors(`${path}.gate_up_proj`, `${path}.down_proj`, sizes),
    ),
  };
}

/** Softmax over all experts, as Qwen-MoE and OLMoE route. */
const softmaxRouting = (config: ConfigReader): MoeCheckpointRouting => ({
  scoring: 'softmax',
  renormalize: config.boolean('norm_topk_prob', false),
  activation: config.activation(),
});

/** Qwen3MoeSparseMoeBlock. transformers 5 saves num_experts as num_local_experts. */
const qwen3Moe: LayoutOf = (config, block) => {
  const sizes = config.sizes(config.either('num_experts', 'num_local_experts'), 'moe_intermediate_size');
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: projections(block, sizes),
    routing: softmaxRouting(config),
  };
};

/**
 * Qwen2MoeSparseMoeBlock: like Qwen3's, with a shared expert whose output is multiplied by the sigmoid of its own gate.
 */
const qwen2Moe: LayoutOf = (config, block) => {
  const {at} = block;
  const layout = qwen3Moe(config, block);
  const {hiddenSize} = layout;
  const sharedIntermediateSize = config.size('shared_expert_intermediate_size');
  return {
    ...layout,
    sharedIntermediateSize,
    weights: {
      ...layout.weights,
      ...sharedProjections(`${at}mlp.shared_expert`, hiddenSize, sharedIntermediateSize),
      shared_gate: weight([hiddenSize, 1], named([1, hiddenSize], `${at}mlp.shared_expert_gate.weight`)),
    },
  };
};

/** OlmoeSparseMoeBlock. */
const olmoe: LayoutOf = (config, block) => {
  const sizes = config.sizes('num_experts', 'intermediate_size');
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: projections(block, sizes),
    routing: softmaxRouting(config),
  };
};

/** The weights of both DeepSeek families: experts, and shared experts that are stored as one expert. */
function deepseek(
  config: ConfigReader,
  block: CheckpointBlock,
  routing: Omit<MoeCheckpointRouting, 'activation'> & {routedScalingFactor: number},
): CheckpointLayout {
  const sizes = config.sizes('n_routed_experts', 'moe_intermediate_size');
  const maxShared = Math.floor(MAX_SIZE / sizes.intermediateSize);
  const numShared = config.has('n_shared_experts') ? config.integer('n_shared_experts', 0, maxShared) : 0;
  const sharedIntermediateSize = numShared * sizes.intermediateSize;
  const shared =
    numShared === 0 ? {} : sharedProjections(`${block.at}mlp.shared_experts`, sizes.hiddenSize, sharedIntermediateSize);
  return {
    ...sizes,
    sharedIntermediateSize,
    topk: config.topk(sizes),
    weights: {...projections(block, sizes), ...shared},
    routing: {...routing, activation: config.activation()},
  };
}

const expertGroups = (config: ConfigReader) => ({
  numExpertGroups: config.size('n_group'),
  topkGroups: config.size('topk_group'),
});

/**
 * DeepseekV2Moe. transformers never renormalizes; DeepSeek's own code renormalizes on request, and then does not scale.
 */
const deepseekV2: LayoutOf = (config, block) => {
  config.only('norm_topk_prob', [false]);
  config.only('scoring_func', ['softmax']);
  const method = config.only('topk_method', ['greedy', 'group_limited_greedy']);
  const groups = method === 'greedy' ? {} : expertGroups(config);
  const routedScalingFactor = config.number('routed_scaling_factor', 1);
  return deepseek(config, block, {scoring: 'softmax', renormalize: false, ...groups, routedScalingFactor});
};

/** DeepseekV3MoE and DeepseekV3TopkRouter. */
const deepseekV3: LayoutOf = (config, block) => {
  config.only('topk_method', ['noaux_tc']);
  config.only('scoring_func', ['sigmoid']);
  const layout = deepseek(config, block, {
    scoring: 'sigmoid',
    renormalize: config.boolean('norm_topk_prob', true),
    ...expertGroups(config),
    routedScalingFactor: config.number('routed_scaling_factor', 2.5),
  });
  const shape = [layout.numExperts];
  const score_correction_bias = weight(shape, named(shape, `${block.at}mlp.gate.e_score_correction_bias`));
  return {...layout, weights: {...layout.weights, score_correction_bias}};
};

/** GraniteMoeMoE: input_linear has gates, then ups. */
const graniteMoe: LayoutOf = (config, block) => {
  const sizes = config.sizes('num_local_experts', 'intermediate_size');
  const path = `${block.at}block_sparse_moe`;
  const routerNames = ['block_sparse_moe.router.layer.weight', 'block_sparse_moe.router.weight'];
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, ...routerNames),
      ...expertWeights(
        sizes,
        block,
        stackedTensors(`${path}.input_linear.weight`, `${path}.output_linear.weight`, sizes),
        stackedTensors(`${path}.experts.gate_up_proj`, `${path}.experts.down_proj`, sizes),
      ),
    },
    routing: {scoring: 'softmaxAfterTopk', renormalize: false, activation: config.activation()},
  };
};

/** GraniteMoeSharedMLP stands beside the block of Granite's experts, and its output is added. */
const graniteMoeShared: LayoutOf = (config, block) => {
  const {at} = block;
  const layout = graniteMoe(config, block);
  const sharedIntermediateSize = config.integer('shared_intermediate_size', 0, MAX_SIZE);
  const [w1, w2] = [`${at}shared_mlp.input_linear.weight`, `${at}shared_mlp.output_linear.weight`];
  const shared = sharedIntermediateSize === 0 ? {} : sharedExpert([w1], w2, layout.hiddenSize, sharedIntermediateSize);
  return {...layout, sharedIntermediateSize, weights: {...layout.weights, ...shared}};
};

/** GptOssExperts and GptOssTopKRouter: a row for each input, with gates and ups in turn. */
const gptOss: LayoutOf = (config, block) => {
  const sizes = config.sizes('num_local_experts', 'intermediate_size');
  const {numExperts: E, hiddenSize: H, intermediateSize: I} = sizes;
  const one = (name: string, shape: number[]) => named(shape, `${block.at}mlp.${name}`);
  const gateUp = {columns: 2 * I, gatesFirst: true};
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: {
      router_kernel: routerKernel(sizes, block, 'mlp.router.weight'),
      router_bias: weight([E], one('router.bias', [E])),
      w1: weight([E, 2 * I, H], one('experts.gate_up_proj', [E, H, 2 * I]), {...gateUp, rows: H}),
      w1_bias: weight([E, 2 * I], one('experts.gate_up_proj_bias', [E, 2 * I]), {...gateUp, rows: 1}),
      w2: weight([E, H, I], one('experts.down_proj', [E, I, H]), {rows: I, columns: H}),
      w2_bias: weight([E, H], one('experts.down_proj_bias', [E, H])),
    },
    routing: {
      scoring: 'softmaxAfterTopk',
      renormalize: false,
      activation: 'swigluOai',
      gateUp: 'concatenated',
      swigluAlpha: config.number('swiglu_alpha', SWIGLU_ALPHA),
      swigluLimit: config.number('swiglu_limit', SWIGLU_LIMIT),
    },
  };
};

const layouts: Record<string, LayoutOf> = {
  mixtral,
  qwen2_moe: qwen2Moe,
  qwen3_moe: qwen3Moe,
  olmoe,
  deepseek_v2: deepseekV2,
  deepseek_v3: deepseekV3,
  granitemoe: graniteMoe,
  granitemoeshared: graniteMoeShared,
  gpt_oss: gptOss,
};

export function checkpointLayout(config: MoeModelConfig, block: CheckpointBlock, opName: string): CheckpointLayout {
  assert(
    typeof config === 'object' && config != null && !Array.isArray(config),
    opName,
    () => `config must be the parsed config.json of the checkpoint, but is ${describeValue(config)}.`,
  );
  const modelType = config['model_type'];
  const isKnown = typeof modelType === 'string' && Object.prototype.hasOwnProperty.call(layouts, modelType);
  const known = Object.keys(layouts).join(', ');
  assert(isKnown, opName, () => `config.model_type must be one of ${known}, but is ${describeValue(modelType)}.`);
  const layout = layouts[modelType as string](new ConfigReader(config, opName), block);
  inWordsOfConfig(() => {
    checkRouting(layout.numExperts, layout.topk, layout.routing, opName);
    checkActivation({...layout.routing, gated: true}, opName);
  });
  return layout;
}

/** The keys of config.json for the options that fusedMoe checks. */
const configKeys: {[option: string]: string} = {
  topk: 'num_experts_per_tok',
  numExpertGroups: 'n_group',
  topkGroups: 'topk_group',
  routedScalingFactor: 'routed_scaling_factor',
  swigluAlpha: 'swiglu_alpha',
  swigluLimit: 'swiglu_limit',
};

function inWordsOfConfig(check: () => void): void {
  try {
    check();
  } catch (error) {
    const options = new RegExp(`\\b(${Object.keys(configKeys).join('|')})\\b`, 'g');
    throw new Error((error as Error).message.replace(options, (option) => `config.${configKeys[option]}`));
  }
}

/** The reasons in config.json for which layer `layer` may lack the weights of its family's layers. */
export function whyLayerMayDiffer(config: MoeModelConfig, layer: number): string[] {
  const {num_hidden_layers: numLayers, first_k_dense_replace: numDense} = config;
  const {mlp_only_layers: denseLayers, decoder_sparse_step: step} = config;
  const reasons: string[] = [];
  if (typeof numLayers === 'number' && layer >= numLayers) {
    reasons.push(`config.num_hidden_layers is ${numLayers}, and layers are counted from 0.`);
  }
  if (typeof numDense === 'number' && layer < numDense) {
    reasons.push(`Layers before ${numDense} have no experts (config.first_k_dense_replace).`);
  }
  if (Array.isArray(denseLayers) && denseLayers.includes(layer)) {
    reasons.push(`Layer ${layer} has no experts (config.mlp_only_layers).`);
  }
  if (isInteger(step) && step > 1 && (layer + 1) % step !== 0) {
    reasons.push(`Only layers ${step - 1}, ${2 * step - 1}, … have experts (config.decoder_sparse_step).`);
  }
  return reasons;
}
