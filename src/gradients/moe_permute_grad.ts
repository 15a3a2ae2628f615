/**
 * The adjoint of copying token t to rows inv[t,0..K-1] is the sum of these rows: MoeUnpermute with weights 1. Rows of
 * no assignment have no slot, so their dy is never read. K may be as large as the number of rows.
 */
import {ones, reshape, type Tensor, util, zeros} from '@tensorflow/tfjs-core';
import {MoePermute, MoeUnpermute} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {gradConfig} from './grad_config';
import {zerosFor} from './zero_gradient';

export const moePermuteGradConfig = gradConfig(
  MoePermute,
  {inputs: ['hiddenStates', 'topkIds'], outputs: ['expertFirstTokenOffset', 'invPermutedIdx', 'a1qScale']},
  (dOutputs, {hiddenStates, topkIds, expertFirstTokenOffset, invPermutedIdx, a1qScale}, {numExperts}) => {
    const sumRowsOfTokens = (dy: Tensor, x: Tensor): Tensor => {
      const rowShape = x.shape.slice(1);
      const shape = [topkIds.shape[0], ...rowShape];
      if (x.dtype !== 'float32') {
        return zeros(shape);
      }
      const {out} = runMoeKernel(
        MoeUnpermute,
        {
          permutedHiddenStates: reshape(dy, [dy.shape[0], util.sizeFromShape(rowShape)]),
          topkWeights: ones(topkIds.shape),
          invPermutedIdx: reshape(invPermutedIdx, topkIds.shape),
          expertFirstTokenOffset,
        },
        {},
      );
      return reshape(out, shape);
    };

    return {
      hiddenStates: () => sumRowsOfTokens(dOutputs.permutedHiddenStates, hiddenStates),
      a1qScale: () => sumRowsOfTokens(dOutputs.a1qScale!, a1qScale!),
      topkIds: zerosFor(topkIds.shape),
      expertMap: zerosFor([numExperts]),
    };
  },
);
