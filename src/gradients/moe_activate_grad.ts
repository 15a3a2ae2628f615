import {MoeActivate, MoeGroupedMatMulBackpropActivation} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {gradConfig} from './grad_config';

export const moeActivateGradConfig = gradConfig(MoeActivate, {inputs: ['z']}, ({out: dy}, {z}, activation) => ({
  z: () => runMoeKernel(MoeGroupedMatMulBackpropActivation, {dy, z}, activation).dz,
}));
