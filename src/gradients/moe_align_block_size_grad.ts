/** Every output is an index. The entry exists so that a gradient can pass this kernel on the tape of a router. */
import {MoeAlignBlockSize} from '../contract/kernel_names';
import {gradConfig} from './grad_config';
import {zerosFor} from './zero_gradient';

export const moeAlignBlockSizeGradConfig = gradConfig(
  MoeAlignBlockSize,
  {inputs: ['topkIds']},
  (_dOutputs, {topkIds}, {numExperts}) => ({topkIds: zerosFor(topkIds.shape), expertMap: zerosFor([numExperts])}),
);
