/** One block of experts, and its tensors in the checkpoints of each model family. */
import type {MoeModelConfig} from '../../src/checkpoints/index';
import {lcg} from './routings';
import type {NaiveTopkOptions} from '../naive/topk';
import type {NaiveFusedOptions} from '../naive/fused_experts';
import type {WrittenTensor} from './safetensors';

type Matrix = number[][];

/** T tokens of H, E experts of I, a shared expert of F; I != H, so that a transposed matrix shows. */
export const sizes = {T: 5, H: 4, E: 4, I: 3, F: 6};
const {T, H, E, I, F} = sizes;

const next = lcg(77);
/** Numbers that are exact in F16 and in BF16. */
const eighth = () => Math.floor(33 * next() - 16) / 8;
const array = <Value>(length: number, value: () => Value) => Array.from({length}, value);
const matrix = (rows: number, columns: number): Matrix => array(rows, () => array(columns, eighth));

export const block = {
  x: matrix(T, H),
  /** [E, H], as torch.nn.Linear has it. */
  router: matrix(E, H),
  routerBias: array(E, eighth),
  correction: [0.5, -0.25, 0.125, 0.0625],
  gate: array(E, () => matrix(I, H)),
  up: array(E, () => matrix(I, H)),
  down: array(E, () => matrix(H, I)),
  gateBias: matrix(E, I),
  upBias: matrix(E, I),
  downBias: matrix(E, H),
  sharedGateProjection: matrix(F, H),
  sharedUp: matrix(F, H),
  sharedDown: matrix(H, F),
  sharedGate: matrix(1, H),
};

export const transposed = (rows: Matrix): Matrix => rows[0].map((_, column) => rows.map((row) => row[column]));
/** gate 0, up 0, gate 1, … */
const interleaved = <Value>(gates: Value[], ups: Value[]): Value[] => gates.flatMap((gate, i) => [gate, ups[i]]);

type Nested = number | Nested[];
const flatten = (values: Nested): number[] => (Array.isArray(values) ? values.flatMap(flatten) : [values]);
const shapeOf = (values: Nested): number[] => (Array.isArray(values) ? [values.length, ...shapeOf(values[0])] : []);

/**
 * w1 [E, 2I, H] and its bias with gates first, and the other weights as the layer has them: every family is loaded into
 * these.
 */
export const w1 = block.gate.map((gate, e) => [...gate, ...block.up[e]]);
export const w1Bias = block.gateBias.map((gate, e) => [...gate, ...block.upBias[e]]);
export const sharedW1 = [...block.sharedGateProjection, ...block.sharedUp];

export type CheckpointCase = {
  name: string;
  config: MoeModelConfig;
  /** By their names after 'model.layers.3.'. */
  tensors: {[name: string]: Nested};
  dtype: 'F32' | 'F16' | 'BF16';
  /** The computation of the model, as arguments of the naive loops. */
  routing: NaiveTopkOptions;
  experts?: NaiveFusedOptions;
  /** The optional weights that the checkpoint has. */
  weights: {[name: string]: Nested};
};

const sharedWeights = {shared_w1: sharedW1, shared_w2: block.sharedDown};
const common = {hidden_size: H, num_experts_per_tok: 2, hidden_act: 'silu', vocab_size: 100};

const mixtralTensors = (): CheckpointCase['tensors'] => {
  const tensors: CheckpointCase['tensors'] = {'block_sparse_moe.gate.weight': block.router};
  for (let e = 0; e < E; e++) {
    tensors[`block_sparse_moe.experts.${e}.w1.weight`] = block.gate[e];
    tensors[`block_sparse_moe.experts.${e}.w2.weight`] = block.down[e];
    tensors[`block_sparse_moe.experts.${e}.w3.weight`] = block.up[e];
  }
  return tensors;
};
const qwenTensors = (): CheckpointCase['tensors'] => {
  const tensors: CheckpointCase['tensors'] = {'mlp.gate.weight': block.router};
  for (let e = 0; e < E; e++) {
    tensors[`mlp.experts.${e}.down_proj.weight`] = block.down[e];
    tensors[`mlp.experts.${e}.gate_proj.weight`] = block.gate[e];
    tensors[`mlp.experts.${e}.up_proj.weight`] = block.up[e];
  }
  return tensors;
};
const stackedTensors = (): CheckpointCase['tensors'] => ({
  'mlp.gate.weight': block.router,
  'mlp.experts.gate_up_proj': w1,
  'mlp.experts.down_proj': block.down,
});
const sharedTensors = (path: string): CheckpointCase['tensors'] => ({
  [`${path}.gate_proj.weight`]: block.sharedGateProjection,
  [`${path}.up_proj.weight`]: block.sharedUp,
  [`${path}.down_proj.weight`]: block.sharedDown,
});

const mixtral = {...common, model_type: 'mixtral', intermediate_size: I, num_local_experts: E};
const qwen3 = {...common, model_type: 'qwen3_moe', intermediate_size: 99, moe_intermediate_size: I, num_experts: E, norm_topk_prob: true};
const qwen2 = {...qwen3, model_type: 'qwen2_moe', shared_expert_intermediate_size: F, norm_topk_prob: false};
const deepseekV2 = {
  ...common, model_type: 'deepseek_v2', intermediate_size: 99, moe_intermediate_size: I, n_routed_experts: E, n_shared_experts: F / I,
  norm_topk_prob: false, topk_method: 'greedy', scoring_func: 'softmax', n_group: 1, topk_group: 1, routed_scaling_factor: 1,
};
const deepseekV3 = {
  ...deepseekV2, model_type: 'deepseek_v3', topk_method: 'noaux_tc', scoring_func: 'sigmoid', norm_topk_prob: true, n_group: 2, topk_group: 1,
  routed_scaling_factor: 2.5,
};
const granite = {...mixtral, model_type: 'granitemoe'};
const gptOss = {...mixtral, model_type: 'gpt_oss', swiglu_alpha: 1.25, swiglu_limit: 1.5};

export const checkpointCases: CheckpointCase[] = [
  {name: 'mixtral', config: mixtral, tensors: mixtralTensors(), dtype: 'BF16', routing: {topk: 2, renormalize: true}, weights: {}},
  {name: 'mixtral, stacked', config: mixtral, tensors: stackedTensors(), dtype: 'F32', routing: {topk: 2, renormalize: true}, weights: {}},
  {name: 'qwen3_moe', config: qwen3, tensors: qwenTensors(), dtype: 'BF16', routing: {topk: 2, renormalize: true}, weights: {}},
  {name: 'qwen3_moe, stacked', config: qwen3, tensors: stackedTensors(), dtype: 'F16', routing: {topk: 2, renormalize: true}, weights: {}},
  {
    name: 'qwen3_moe, by transformers 5', config: {...qwen3, num_experts: undefined, num_local_experts: E, norm_topk_prob: undefined},
    tensors: stackedTensors(), dtype: 'BF16', routing: {topk: 2, renormalize: false}, weights: {},
  },
  {
    name: 'qwen3_vl_moe_text', config: {...qwen3, model_type: 'qwen3_vl_moe_text'}, dtype: 'BF16', weights: {},
    routing: {topk: 2, renormalize: true},
    tensors: {
      'mlp.gate.weight': block.router,
      'mlp.experts.gate_up_proj': w1.map(transposed),
      'mlp.experts.down_proj': block.down.map(transposed),
    },
  },
  {
    name: 'olmoe',
    config: {...common, model_type: 'olmoe', intermediate_size: I, num_experts: E, norm_topk_prob: false, hidden_act: 'gelu_new'},
    tensors: qwenTensors(), dtype: 'F32', routing: {topk: 2, renormalize: false}, experts: {activation: 'geluTanh'}, weights: {},
  },
  {
    name: 'qwen2_moe', config: qwen2, dtype: 'BF16', routing: {topk: 2, renormalize: false},
    tensors: {...qwenTensors(), ...sharedTensors('mlp.shared_expert'), 'mlp.shared_expert_gate.weight': block.sharedGate},
    weights: {...sharedWeights, shared_gate: transposed(block.sharedGate)},
  },
  {
    name: 'deepseek_v2', config: deepseekV2, tensors: {...qwenTensors(), ...sharedTensors('mlp.shared_experts')}, dtype: 'BF16',
    routing: {topk: 2, renormalize: false}, weights: sharedWeights,
  },
  {
    name: 'deepseek_v2, groups', dtype: 'BF16',
    config: {...deepseekV2, n_shared_experts: null, topk_method: 'group_limited_greedy', n_group: 2, routed_scaling_factor: 16},
    tensors: qwenTensors(), weights: {},
    routing: {topk: 2, renormalize: false, numExpertGroups: 2, topkGroups: 1, routedScalingFactor: 16},
  },
  {
    name: 'deepseek_v3', config: deepseekV3, dtype: 'F32',
    tensors: {...qwenTensors(), ...sharedTensors('mlp.shared_experts'), 'mlp.gate.e_score_correction_bias': block.correction},
    routing: {
      topk: 2, scoring: 'sigmoid', renormalize: true, numExpertGroups: 2, topkGroups: 1, routedScalingFactor: 2.5,
      scoreCorrectionBias: block.correction,
    },
    weights: {...sharedWeights, score_correction_bias: block.correction},
  },
  {
    name: 'granitemoe', config: granite, dtype: 'BF16', routing: {topk: 2, scoring: 'softmaxAfterTopk'}, weights: {},
    tensors: {
      'block_sparse_moe.router.layer.weight': block.router,
      'block_sparse_moe.input_linear.weight': w1,
      'block_sparse_moe.output_linear.weight': block.down,
    },
  },
  {
    name: 'granitemoeshared, newer names', config: {...granite, model_type: 'granitemoeshared', shared_intermediate_size: F}, dtype: 'F16',
    routing: {topk: 2, scoring: 'softmaxAfterTopk'},
    tensors: {
      'block_sparse_moe.router.weight': block.router,
      'block_sparse_moe.experts.gate_up_proj': w1,
      'block_sparse_moe.experts.down_proj': block.down,
      'shared_mlp.input_linear.weight': sharedW1,
      'shared_mlp.output_linear.weight': block.sharedDown,
    },
    weights: sharedWeights,
  },
  {
    name: 'gpt_oss', config: gptOss, dtype: 'BF16', routing: {topk: 2, scoring: 'softmaxAfterTopk'},
    experts: {activation: 'swigluOai', gateUp: 'concatenated', swigluAlpha: 1.25, swigluLimit: 1.5},
    tensors: {
      'mlp.router.weight': block.router,
      'mlp.router.bias': block.routerBias,
      'mlp.experts.gate_up_proj': block.gate.map((gate, e) => transposed(interleaved(gate, block.up[e]))),
      'mlp.experts.gate_up_proj_bias': block.gateBias.map((gate, e) => interleaved(gate, block.upBias[e])),
      'mlp.experts.down_proj': block.down.map(transposed),
      'mlp.experts.down_proj_bias': block.downBias,
    },
    weights: {router_bias: block.routerBias, w1_bias: w1Bias, w2_bias: block.downBias},
  },
];

/** The tensors of layer 3, with one of another layer between them. */
export function writtenTensors({tensors, dtype}: Pick<CheckpointCase, 'tensors' | 'dtype'>, prefix = 'model.'): WrittenTensor[] {
  const written = Object.entries(tensors).map(([name, values]) => ({
    name: `${prefix}layers.3.${name}`,
    shape: shapeOf(values),
    values: flatten(values),
    dtype,
  }));
  const [first, ...rest] = written;
  return [first, {name: `${prefix}layers.33.mlp.gate.weight`, shape: [1], values: [9], dtype}, ...rest];
}
