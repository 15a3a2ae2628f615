/** The kernels of the webgl backend, registered on import with the gradients. */
import type {MoeDecodingKernelName, MoeKernelName} from '../contract/kernel_names';
import {gradients} from '../gradients/gradients';
import {moeAlignBlockSizeWebGL} from './moe_align_block_size/webgl';
import {moeDequantizeRowsWebGL, moeDequantizeWeightsWebGL} from './moe_dequantize_weights/webgl';
import {moeFusedExpertsWebGL} from './moe_fused_experts/webgl';
import {moeExpertsDown, moeExpertsUp} from './moe_experts/composed';
import {
  moeActivateWebGL,
  moeGroupedMatMulBackpropActivationWebGL,
  moeGroupedMatMulBackpropWeightsWebGL,
  moeGroupedMatMulWebGL,
} from './moe_grouped_mat_mul/webgl';
import {moePermuteWebGL} from './moe_permute/webgl';
import {moeQuantizeWeightsWebGL} from './moe_quantize_weights/webgl';
import {moeRankRowsWebGL} from './moe_rank_rows/webgl';
import {moeRouterProbabilitiesWebGL} from './moe_router_probabilities/webgl';
import {moeSumWebGL} from './moe_sum/webgl';
import {moeTopKBackpropWebGL, moeTopKWebGL} from './moe_topk/webgl';
import {
  moeUnpermuteBackpropRowsWebGL,
  moeUnpermuteBackpropWeightsWebGL,
  moeUnpermuteWebGL,
} from './moe_unpermute/webgl';
import {registerGradients, registerKernels} from './register';
import type {MoeKernel} from './shared/moe_kernel';

export const webglKernels = {
  MoeAlignBlockSize: moeAlignBlockSizeWebGL,
  MoePermute: moePermuteWebGL,
  MoeUnpermute: moeUnpermuteWebGL,
  MoeUnpermuteBackpropRows: moeUnpermuteBackpropRowsWebGL,
  MoeUnpermuteBackpropWeights: moeUnpermuteBackpropWeightsWebGL,
  MoeRankRows: moeRankRowsWebGL,
  MoeSum: moeSumWebGL,
  MoeGroupedMatMul: moeGroupedMatMulWebGL,
  MoeActivate: moeActivateWebGL,
  MoeGroupedMatMulBackpropActivation: moeGroupedMatMulBackpropActivationWebGL,
  MoeGroupedMatMulBackpropWeights: moeGroupedMatMulBackpropWeightsWebGL,
  MoeFusedExperts: moeFusedExpertsWebGL,
  MoeExpertsUp: moeExpertsUp,
  MoeExpertsDown: moeExpertsDown,
  MoeTopK: moeTopKWebGL,
  MoeTopKBackprop: moeTopKBackpropWebGL,
  MoeRouterProbabilities: moeRouterProbabilitiesWebGL,
  MoeQuantizeWeights: moeQuantizeWeightsWebGL,
  MoeDequantizeWeights: moeDequantizeWeightsWebGL,
  MoeDequantizeRows: moeDequantizeRowsWebGL,
} satisfies Record<Exclude<MoeKernelName, MoeDecodingKernelName | 'MoeExpertsDownBackprop'>, MoeKernel>;

registerKernels(webglKernels, 'webgl');
registerGradients(gradients);
