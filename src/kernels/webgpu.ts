/** The kernels of the webgpu backend, registered on import with the gradients. */
import type {MoeKernelName} from '../contract/kernel_names';
import {registerStepRecorder, type StepRecorder} from '../contract/step_recorders';
import {gradients} from '../gradients/gradients';
import {moeAlignBlockSizeWebGPU} from './moe_align_block_size/webgpu';
import {moeCachedAttentionWebGPU, moeRotateIntoCacheWebGPU} from './moe_cached_attention/webgpu';
import {moeDequantizeWeightsWebGPU} from './moe_dequantize_weights/webgpu';
import {moeExpertsDown} from './moe_experts/composed';
import {moeExpertsDownBackpropWebGPU} from './moe_experts/webgpu';
import {moeFusedExpertsWebGPU} from './moe_fused_experts/webgpu';
import {
  moeActivateWebGPU,
  moeExpertsUpWebGPU,
  moeGroupedMatMulBackpropActivationWebGPU,
  moeGroupedMatMulWebGPU,
} from './moe_grouped_mat_mul/webgpu';
import {moeGroupedMatMulBackpropWeightsWebGPU} from './moe_grouped_mat_mul/webgpu_outer_products';
import {moePermuteWebGPU} from './moe_permute/webgpu';
import {moeProjectionsWebGPU} from './moe_projections/webgpu';
import {moeQuantizeWeightsWebGPU} from './moe_quantize_weights/webgpu';
import {moeRankRowsWebGPU} from './moe_rank_rows/webgpu';
import {moeRmsNormWebGPU} from './moe_rms_norm/webgpu';
import {moeRouterProbabilitiesWebGPU} from './moe_router_probabilities/webgpu';
import {moeScaledSumWebGPU} from './moe_scaled_sum/webgpu';
import {moeSumWebGPU} from './moe_sum/webgpu';
import {moeTopKWebGPU} from './moe_topk/webgpu';
import {moeTopKBackpropWebGPU} from './moe_topk/webgpu_backprop';
import {moeUnpermuteWebGPU} from './moe_unpermute/webgpu';
import {moeUnpermuteBackpropRowsWebGPU} from './moe_unpermute/webgpu_backprop_rows';
import {moeUnpermuteBackpropWeightsWebGPU} from './moe_unpermute/webgpu_backprop_weights';
import {registerGradients, registerKernels} from './register';
import type {MoeKernel} from './shared/moe_kernel';
import {recordWebGPUStep} from './shared/webgpu_step';

export const webgpuKernels = {
  MoeAlignBlockSize: moeAlignBlockSizeWebGPU,
  MoePermute: moePermuteWebGPU,
  MoeUnpermute: moeUnpermuteWebGPU,
  MoeUnpermuteBackpropRows: moeUnpermuteBackpropRowsWebGPU,
  MoeUnpermuteBackpropWeights: moeUnpermuteBackpropWeightsWebGPU,
  MoeRankRows: moeRankRowsWebGPU,
  MoeSum: moeSumWebGPU,
  MoeGroupedMatMul: moeGroupedMatMulWebGPU,
  MoeActivate: moeActivateWebGPU,
  MoeGroupedMatMulBackpropActivation: moeGroupedMatMulBackpropActivationWebGPU,
  MoeGroupedMatMulBackpropWeights: moeGroupedMatMulBackpropWeightsWebGPU,
  MoeFusedExperts: moeFusedExpertsWebGPU,
  MoeExpertsUp: moeExpertsUpWebGPU,
  MoeExpertsDown: moeExpertsDown,
  MoeExpertsDownBackprop: moeExpertsDownBackpropWebGPU,
  MoeTopK: moeTopKWebGPU,
  MoeTopKBackprop: moeTopKBackpropWebGPU,
  MoeRouterProbabilities: moeRouterProbabilitiesWebGPU,
  MoeQuantizeWeights: moeQuantizeWeightsWebGPU,
  MoeDequantizeWeights: moeDequantizeWeightsWebGPU,
  MoeRmsNorm: moeRmsNormWebGPU,
  MoeRotateIntoCache: moeRotateIntoCacheWebGPU,
  MoeCachedAttention: moeCachedAttentionWebGPU,
  MoeProjections: moeProjectionsWebGPU,
  MoeScaledSum: moeScaledSumWebGPU,
} satisfies Record<MoeKernelName, MoeKernel>;

/** Gives backends of this name the kernels, and the recorder of steps. */
export function registerWebGPUKernels(backendName: string): void {
  registerKernels(webgpuKernels, backendName);
  registerStepRecorder(backendName, recordWebGPUStep as StepRecorder);
}

registerWebGPUKernels('webgpu');
registerGradients(gradients);
