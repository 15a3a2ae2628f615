/**
 * The adjoint of copying token t to rows inv[t,0..K-1] is summing those rows: MoeUnpermute with weights 1.
 * Rows of no assignment have no slot, so their dy is never read. K may be as large as there are rows.
 */
import {type GradConfig, ones, reshape, type Tensor, zeros} from '@tensorflow/tfjs-core';
import {MoePermute, type MoePermuteAttrs, MoeUnpermute} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {zerosFor} from './zero_gradient';

export const moePermuteGradConfig: GradConfig = {
  kernelName: MoePermute,
  inputsToSave: ['hiddenStates', 'topkIds'],
  // expertFirstTokenOffset, invPermutedIdx and the gathered a1qScale
  outputsToSave: [false, true, true, false, false, true],
  gradFunc: (dys, saved, attrs) => {
    const [dRows, , , , , dScaleRows] = dys as Tensor[];
    const [hiddenStates, topkIds, expertFirstTokenOffset, invPermutedIdx, scaleRows] = saved as Tensor[];
    const {numExperts} = attrs as unknown as MoePermuteAttrs;
    const numTokens = topkIds.shape[0];

    const sumRowsOfTokens = (dy: Tensor, x: Tensor): Tensor => {
      const shape = [numTokens, ...x.shape.slice(1)];
      if (x.dtype !== 'float32') {
        return zeros(shape);
      }
      const rowSize = shape.slice(1).reduce((size, dim) => size * dim, 1);
      const [sums] = runMoeKernel(
        MoeUnpermute,
        {
          permutedHiddenStates: reshape(dy, [dy.shape[0], rowSize]),
          topkWeights: ones(topkIds.shape),
          invPermutedIdx: reshape(invPermutedIdx, topkIds.shape),
          expertFirstTokenOffset,
        },
        {},
      );
      return reshape(sums, shape);
    };

    return {
      hiddenStates: () => sumRowsOfTokens(dRows, hiddenStates),
      a1qScale: () => sumRowsOfTokens(dScaleRows, scaleRows),
      topkIds: zerosFor(topkIds.shape),
      expertMap: zerosFor([numExperts]),
    };
  },
};
