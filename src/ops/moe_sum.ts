import {op, type Tensor, type Tensor2D, type TensorLike, type Variable} from '@tensorflow/tfjs-core';
import {MoeSum} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {assert, assertOut, assertRank, checkOptions, convertToTensor} from '../arguments/checks';

export type MoeSumOptions = {
  /**
   * A variable float32 [T, H]. It is assigned the result once the op has succeeded, and shares the result's data.
   * Default: none.
   */
  out?: Variable | null;
};

function moeSum_(x: Tensor | TensorLike, options?: MoeSumOptions | null): Tensor2D {
  const opName = 'moeSum';
  const given = checkOptions(options, ['out'], opName);
  const $x = convertToTensor(x, 'x', opName, ['float32']);
  assertRank($x, 'x', opName, '[T, K, H]', 'Reshape it to [-1, K, H] first.');
  const [numTokens, topk, hiddenSize] = $x.shape;
  assert(topk >= 1 && hiddenSize >= 1, opName, () => `x must have K >= 1 and H >= 1, but is [${$x.shape}].`);
  assertOut(given.out, [numTokens, hiddenSize], 'float32', opName);

  const {out} = runMoeKernel(MoeSum, {x: $x}, {});
  given.out?.assign(out);
  return out;
}

/**
 * Sums each token's K rows.
 *
 * ```js
 * const x = tf.tensor3d([[[1, 2], [3, 4]], [[5, 6], [7, 8]]]); // T = 2, K = 2, H = 2
 * await tf.moeSum(x).array(); // => [[4, 6], [12, 14]]
 * ```
 *
 * @param x  float32 [T, K, H].
 * @param options  {@link MoeSumOptions}.
 * @returns float32 [T, H]: the sum over k, in slot order in float32. The error is at most min(K + 1, 64) * 2^-24 of the
 *     sum of the terms' sizes.
 *
 * Gradient: to x.
 *
 * @throws if x is not float32 [T, K, H], or an option is unknown. On GPUs also if a tensor is larger than the device
 *     binds.
 *
 * Source: vLLM `moe_sum`.
 */
export const moeSum = /* @__PURE__ */ op({moeSum_});
