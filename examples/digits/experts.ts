/** One layer of experts, each a projection [H, D] of its own, computed in two ways. */
import * as tf from '../../src/tf';
import type {Routing} from './gate';

export function makeExperts(numExperts: number, inputSize: number, outputSize: number): tf.Tensor2D[] {
  return Array.from({length: numExperts}, (_, expert) =>
    tf.randomNormal<tf.Rank.R2>([inputSize, outputSize], 0, 1 / Math.sqrt(inputSize), 'float32', expert + 1),
  );
}

/** Each expert sees only the tokens that chose it. */
export function runGrouped(
  tokens: tf.Tensor2D,
  {topkIds, topkWeights}: Routing,
  experts: tf.Tensor2D[],
): tf.Tensor2D {
  return tf.tidy(() => {
    const {permutedHiddenStates, expertFirstTokenOffset, invPermutedIdx} = tf.moePermute(
      tokens,
      topkIds,
      experts.length,
    );
    const offset = expertFirstTokenOffset.dataSync();
    const outputs = experts.map((weight, expert) => {
      const rows = tf.slice(permutedHiddenStates, [offset[expert], 0], [offset[expert + 1] - offset[expert], -1]);
      return tf.matMul(rows, weight);
    });
    return tf.moeUnpermute(tf.concat(outputs), topkWeights, invPermutedIdx, expertFirstTokenOffset);
  });
}

/** Every expert sees every token; `allExperts` is their weights side by side, [H, E*D]. */
export function runDense(
  tokens: tf.Tensor2D,
  {topkIds, topkWeights}: Routing,
  allExperts: tf.Tensor2D,
  numExperts: number,
): tf.Tensor2D {
  return tf.tidy(() => {
    const numTokens = tokens.shape[0];
    const outputSize = allExperts.shape[1] / numExperts;
    const outputs = tf.reshape(tf.matMul(tokens, allExperts), [numTokens, numExperts, outputSize]);
    // 0 for the experts that the token did not choose.
    const chosen = tf.oneHot(topkIds, numExperts, 1, 0, 'float32');
    const mask = tf.matMul(tf.expandDims(topkWeights, 1), chosen);
    return tf.reshape(tf.matMul(mask, outputs), [numTokens, outputSize]);
  });
}
