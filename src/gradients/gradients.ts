/**
 * The gradient of every kernel, the same on all backends. MoeFusedExperts needs none: where a gradient is wanted, other
 * kernels run the experts. MoeExpertsDownBackprop needs none: a gradient of a gradient runs without it.
 */
import type {GradConfig} from '@tensorflow/tfjs-core';
import type {MoeDecodingKernelName, MoeKernelName} from '../contract/kernel_names';
import {moeActivateGradConfig} from './moe_activate_grad';
import {moeAlignBlockSizeGradConfig} from './moe_align_block_size_grad';
import {moeExpertsDownGradConfig, moeExpertsUpGradConfig} from './moe_experts_grad';
import {moeGroupedMatMulBackpropActivationGradConfig} from './moe_grouped_mat_mul_backprop_activation_grad';
import {moeGroupedMatMulBackpropWeightsGradConfig, moeGroupedMatMulGradConfig} from './moe_grouped_mat_mul_grad';
import {moePermuteGradConfig} from './moe_permute_grad';
import {
  moeDequantizeRowsGradConfig,
  moeDequantizeWeightsGradConfig,
  moeQuantizeWeightsGradConfig,
} from './quantized_weights_grad';
import {moeRankRowsGradConfig} from './moe_rank_rows_grad';
import {moeRouterProbabilitiesGradConfig} from './moe_router_probabilities_grad';
import {moeSumGradConfig} from './moe_sum_grad';
import {moeTopKBackpropGradConfig, moeTopKGradConfig} from './moe_topk_grad';
import {
  moeUnpermuteBackpropRowsGradConfig,
  moeUnpermuteBackpropWeightsGradConfig,
  moeUnpermuteGradConfig,
} from './moe_unpermute_grad';

export const gradients = {
  MoeAlignBlockSize: moeAlignBlockSizeGradConfig,
  MoePermute: moePermuteGradConfig,
  MoeUnpermute: moeUnpermuteGradConfig,
  MoeUnpermuteBackpropRows: moeUnpermuteBackpropRowsGradConfig,
  MoeUnpermuteBackpropWeights: moeUnpermuteBackpropWeightsGradConfig,
  MoeRankRows: moeRankRowsGradConfig,
  MoeSum: moeSumGradConfig,
  MoeGroupedMatMul: moeGroupedMatMulGradConfig,
  MoeActivate: moeActivateGradConfig,
  MoeGroupedMatMulBackpropActivation: moeGroupedMatMulBackpropActivationGradConfig,
  MoeGroupedMatMulBackpropWeights: moeGroupedMatMulBackpropWeightsGradConfig,
  MoeExpertsUp: moeExpertsUpGradConfig,
  MoeExpertsDown: moeExpertsDownGradConfig,
  MoeTopK: moeTopKGradConfig,
  MoeTopKBackprop: moeTopKBackpropGradConfig,
  MoeRouterProbabilities: moeRouterProbabilitiesGradConfig,
  MoeQuantizeWeights: moeQuantizeWeightsGradConfig,
  MoeDequantizeWeights: moeDequantizeWeightsGradConfig,
  MoeDequantizeRows: moeDequantizeRowsGradConfig,
} satisfies Record<
  Exclude<MoeKernelName, MoeDecodingKernelName | 'MoeFusedExperts' | 'MoeExpertsDownBackprop'>,
  GradConfig
>;
