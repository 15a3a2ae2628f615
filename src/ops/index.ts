/** Every op, without registering any kernel: `tfjs-moe/ops`. */
export type {FusedExpertsOptions, MoeExpertWeights, MoeSharedExperts} from '../arguments/experts';
export type {MoeIndices, MoeTopkOptions} from '../arguments/routing';
export {fusedExperts} from './fused_experts';
export {fusedMoe, type FusedMoeOptions, type FusedMoeResult, type FusedMoeReturn} from './fused_moe';
export {moeAddAuxiliaryLoss} from './moe_add_auxiliary_loss';
export {moeAlignBlockSize, type MoeAlignBlockSizeOptions, type MoeAlignBlockSizeResult} from './moe_align_block_size';
export {moeDequantizeWeights, type MoeDequantizeWeightsOptions} from './moe_dequantize_weights';
export {moeExpertMap, type MoeExpertMapResult, type MoeExpertMapStrategy} from './moe_expert_map';
export {moeGroupedMatMul, type MoeGroupedMatMulOptions} from './moe_grouped_mat_mul';
export {
  moeLoadBalancingLoss,
  type MoeLoadBalancingLossOptions,
  type MoeLoadBalancingScope,
} from './moe_load_balancing_loss';
export {moePermute, type MoePermuteOptions, type MoePermuteResult} from './moe_permute';
export {
  moePermuteBlockAligned,
  type MoePermuteBlockAlignedOptions,
  type MoePermuteBlockAlignedResult,
} from './moe_permute_block_aligned';
export {moePermuteUnpermuteSupported} from './moe_permute_unpermute_supported';
export {
  moeQuantizeWeights,
  type MoeQuantizeWeightsOptions,
  type QuantizedFormat,
  type QuantizedWeights,
  type ScaleFormat,
} from './moe_quantize_weights';
export {moeRouterZLoss, type MoeRouterZLossOptions} from './moe_router_z_loss';
export {moeSum, type MoeSumOptions} from './moe_sum';
export {moeTopk, type MoeTopkResult, type MoeTopkScoring} from './moe_topk';
export {moeUnpermute, type MoeUnpermuteOptions} from './moe_unpermute';
export {moeUnpermuteAndReduce, type MoeUnpermuteAndReduceOptions} from './moe_unpermute_and_reduce';
