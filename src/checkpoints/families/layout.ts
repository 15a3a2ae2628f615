/** The description of a block in its checkpoint: which tensors make up its weights, and how its router chooses. */
import type {WeightName} from '../../contract/block_weights';
import type {MoeActivation, MoeGateUp, MoeTopkScoring} from '../../contract/kernel_names';
import type {ConfigReader, Sizes} from '../config_reader';

/**
 * Tensors of the checkpoint that must have one shape. Their names are made on request, because there may be millions.
 */
export type CheckpointTensors = {
  count: number;
  shape: number[];
  nameOf: (index: number) => string;
};

/**
 * The matrices of a tensor that must be transposed. `gatesFirst`: their columns are gate 0, up 0, gate 1, …, and all
 * gates must be moved before all ups.
 */
export type TransposedMatrices = {rows: number; columns: number; gatesFirst?: boolean};

/**
 * A weight of the block: the concatenation of tensors of the checkpoint. A weight of no tensors is 0; the family has
 * none, but computes as if it were there. A tensor may come more than once.
 */
export type CheckpointWeight = {
  shape: number[];
  tensors: CheckpointTensors;
  /** So many rows are taken from each tensor in turn, until all are taken. Default: all rows of a tensor. */
  rowsInTurn?: number;
  /** Absent if the values are in the right order already. */
  transposed?: TransposedMatrices;
};

export type CheckpointWeights = Partial<Record<WeightName, CheckpointWeight>> &
  Record<'router_kernel' | 'w1' | 'w2', CheckpointWeight>;

/** The options of fusedMoe that config.json decides. */
export type MoeCheckpointRouting = {
  /** How logits become scores, as in moeTopk. */
  scoring: MoeTopkScoring;
  /** Whether the K weights are divided by their sum. */
  renormalize: boolean;
  /** As in moeTopk, if the scoring is `'sparsemixer'`. */
  sparsemixerJitter?: number;
  /** The number of groups of experts, if the family chooses in groups. */
  numExpertGroups?: number;
  /** The number of groups from which experts are chosen. Present with numExpertGroups. */
  topkGroups?: number;
  /** The factor of the weights, if it is not 1. */
  routedScalingFactor?: number;
  /** The number of experts that return their input, if the family has such experts. The router has logits for them. */
  numZeroExperts?: number;
  /** Whether weights multiply the experts' inputs, and not their outputs. Default false. */
  applyRouterWeightOnInput?: boolean;
  /** As in moeGroupedMatMul. */
  activation: MoeActivation;
  /** False if experts have no gates. Default true. */
  gated?: boolean;
  /** The order of gates and ups in w1, if it is not the activation's default. */
  gateUp?: MoeGateUp;
  /** Alpha of `'swigluOai'`. */
  swigluAlpha?: number;
  /** Limit of `'swigluOai'`, or of gated `'silu'` where it is given. */
  swigluLimit?: number;
};

export type CheckpointLayout = Sizes & {
  /** The width of the shared experts, which count as one expert; 0 without shared experts. */
  sharedIntermediateSize: number;
  topk: number;
  weights: CheckpointWeights;
  /** The keys of config.json for options of fusedMoe, where the family's differ from the usual ones. */
  configKeys?: {[option: string]: string};
  routing: MoeCheckpointRouting;
};

/**
 * The block in its checkpoint: how its tensors' names begin, such as 'model.layers.3.', and which tensors there are.
 */
export type CheckpointBlock = {
  at: string;
  hasTensor: (name: string) => boolean;
};

export type LayoutOf = (config: ConfigReader, block: CheckpointBlock) => CheckpointLayout;
