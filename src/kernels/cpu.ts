/** The kernels that run on the host, registered on import for the backends that they serve, with the gradients. */
import type {MoeDecodingKernelName, MoeKernelName} from '../contract/kernel_names';
import {gradients} from '../gradients/gradients';
import {moeAlignBlockSizeCpu} from './moe_align_block_size/cpu';
import {moeDequantizeRowsCpu, moeDequantizeWeightsCpu} from './moe_dequantize_weights/cpu';
import {moeExpertsDown, moeExpertsUp} from './moe_experts/composed';
import {moeExpertsDownBackpropCpu} from './moe_experts/cpu';
import {moeFusedExpertsCpu} from './moe_fused_experts/cpu';
import {
  moeActivateCpu,
  moeGroupedMatMulBackpropActivationCpu,
  moeGroupedMatMulBackpropWeightsCpu,
  moeGroupedMatMulCpu,
} from './moe_grouped_mat_mul/cpu';
import {moePermuteCpu} from './moe_permute/cpu';
import {moeQuantizeWeightsCpu} from './moe_quantize_weights/cpu';
import {moeRankRowsCpu} from './moe_rank_rows/cpu';
import {moeRouterProbabilitiesCpu} from './moe_router_probabilities/cpu';
import {moeSumCpu} from './moe_sum/cpu';
import {moeTopKBackpropCpu, moeTopKCpu} from './moe_topk/cpu';
import {moeUnpermuteBackpropRowsCpu, moeUnpermuteBackpropWeightsCpu, moeUnpermuteCpu} from './moe_unpermute/cpu';
import {registerGradients, registerKernels} from './register';
import type {MoeKernel} from './shared/moe_kernel';

export const cpuKernels = {
  MoeAlignBlockSize: moeAlignBlockSizeCpu,
  MoePermute: moePermuteCpu,
  MoeUnpermute: moeUnpermuteCpu,
  MoeUnpermuteBackpropRows: moeUnpermuteBackpropRowsCpu,
  MoeUnpermuteBackpropWeights: moeUnpermuteBackpropWeightsCpu,
  MoeRankRows: moeRankRowsCpu,
  MoeSum: moeSumCpu,
  MoeGroupedMatMul: moeGroupedMatMulCpu,
  MoeActivate: moeActivateCpu,
  MoeGroupedMatMulBackpropActivation: moeGroupedMatMulBackpropActivationCpu,
  MoeGroupedMatMulBackpropWeights: moeGroupedMatMulBackpropWeightsCpu,
  MoeFusedExperts: moeFusedExpertsCpu,
  MoeExpertsUp: moeExpertsUp,
  MoeExpertsDown: moeExpertsDown,
  MoeExpertsDownBackprop: moeExpertsDownBackpropCpu,
  MoeTopK: moeTopKCpu,
  MoeTopKBackprop: moeTopKBackpropCpu,
  MoeRouterProbabilities: moeRouterProbabilitiesCpu,
  MoeQuantizeWeights: moeQuantizeWeightsCpu,
  MoeDequantizeWeights: moeDequantizeWeightsCpu,
  MoeDequantizeRows: moeDequantizeRowsCpu,
} satisfies Record<Exclude<MoeKernelName, MoeDecodingKernelName>, MoeKernel>;

for (const backendName of ['cpu', 'wasm', 'tensorflow']) {
  registerKernels(cpuKernels, backendName);
}
registerGradients(gradients);
