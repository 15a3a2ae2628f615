/** Adds the chained methods to tf.Tensor on import: `x.moePermute(ids, E)` is `moePermute(x, ids, E)`. */
import {type Rank, Tensor, type TensorLike} from '@tensorflow/tfjs-core';
import {
  fusedMoe,
  type FusedMoeOptions,
  type FusedMoeReturn,
  moeGroupedMatMul,
  type MoeGroupedMatMulOptions,
  type MoeIndices,
  moePermute,
  type MoePermuteOptions,
  type MoePermuteResult,
  moeQuantizeWeights,
  type MoeQuantizeWeightsOptions,
  moeSum,
  type MoeSumOptions,
  moeTopk,
  type MoeTopkOptions,
  type MoeTopkResult,
  moeUnpermute,
  type MoeUnpermuteOptions,
  type MoeExpertWeights,
  type QuantizedWeights,
} from './ops/index';

declare module '@tensorflow/tfjs-core/dist/tensor.js' {
  interface Tensor<R extends Rank = Rank> {
    moePermute(topkIds: MoeIndices, numExperts: number, options?: MoePermuteOptions | null): MoePermuteResult;
    moeUnpermute(
      topkWeights: Tensor | TensorLike,
      invPermutedIdx: MoeIndices,
      expertFirstTokenOffset?: MoeIndices | MoeUnpermuteOptions | null,
      options?: MoeUnpermuteOptions | null,
    ): Tensor2D;
    moeSum(options?: MoeSumOptions | null): Tensor2D;
    moeGroupedMatMul(
      weights: MoeExpertWeights,
      expertFirstTokenOffset: MoeIndices,
      options?: MoeGroupedMatMulOptions | null,
    ): Tensor2D;
    fusedMoe<ReturnRouting extends boolean = false>(
      w1: MoeExpertWeights,
      w2: MoeExpertWeights,
      routerLogits: Tensor | TensorLike,
      topk: number,
      options?: FusedMoeOptions<ReturnRouting> | null,
    ): FusedMoeReturn<R, ReturnRouting>;
    moeTopk(topk: number, options?: MoeTopkOptions | null): MoeTopkResult<R>;
    moeQuantizeWeights(options?: MoeQuantizeWeightsOptions | null): QuantizedWeights;
  }
}

// Where a page has two copies of tfjs-core, tensors are of the class of the copy that came first.
const globals = (globalThis as {_tfGlobals?: Map<string, unknown>})._tfGlobals;
const TensorClass = (globals?.get('Tensor') as typeof Tensor | undefined) ?? Tensor;

TensorClass.prototype.moePermute = function (topkIds, numExperts, options) {
  this.throwIfDisposed();
  return moePermute(this, topkIds, numExperts, options);
};
TensorClass.prototype.moeUnpermute = function (topkWeights, invPermutedIdx, expertFirstTokenOffset, options) {
  this.throwIfDisposed();
  return moeUnpermute(this, topkWeights, invPermutedIdx, expertFirstTokenOffset, options);
};
TensorClass.prototype.moeSum = function (options) {
  this.throwIfDisposed();
  return moeSum(this, options);
};
TensorClass.prototype.moeGroupedMatMul = function (weights, expertFirstTokenOffset, options) {
  this.throwIfDisposed();
  return moeGroupedMatMul(this, weights, expertFirstTokenOffset, options);
};
TensorClass.prototype.fusedMoe = function (w1, w2, routerLogits, topk, options) {
  this.throwIfDisposed();
  return fusedMoe(this, w1, w2, routerLogits, topk, options);
};
TensorClass.prototype.moeTopk = function (topk, options) {
  this.throwIfDisposed();
  return moeTopk(this, topk, options);
};
TensorClass.prototype.moeQuantizeWeights = function (options) {
  this.throwIfDisposed();
  return moeQuantizeWeights(this, options);
};
