/** MoeQuantizeWeights on the host. */
import {MoeQuantizeWeights} from '../../contract/kernel_names';
import {hostKernel} from '../shared/host_kernel';
import {quantizedOnHost} from '../weight_formats/quantize';

export const moeQuantizeWeightsCpu = hostKernel(MoeQuantizeWeights, ({weights}, {encoding}) =>
  quantizedOnHost(weights, encoding),
);
