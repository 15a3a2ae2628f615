/** Ranks are indices. The entry exists so that a gradient can pass this kernel on the tape of a router. */
import {MoeRankRows} from '../contract/kernel_names';
import {gradConfig} from './grad_config';
import {zerosFor} from './zero_gradient';

export const moeRankRowsGradConfig = gradConfig(
  MoeRankRows,
  {inputs: ['values', 'expertFirstTokenOffset']},
  (_dOutputs, {values, expertFirstTokenOffset}) => ({
    values: zerosFor(values.shape),
    expertFirstTokenOffset: zerosFor(expertFirstTokenOffset.shape),
  }),
);
