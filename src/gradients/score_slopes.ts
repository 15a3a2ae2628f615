/** The slopes of a router's scores, made of ops that have derivatives of any order. */
import {add, div, maximum, mul, neg, onesLike, square, step, sub, type Tensor} from '@tensorflow/tfjs-core';
import type {MoeKernelScoring} from '../contract/kernel_names';
import {atMost, exp, select, sigmoid, softplus} from '../smooth_ops';

/** d log(score) / d z */
export function slopeOf(z: Tensor, scoring: MoeKernelScoring): Tensor {
  if (scoring === 'softmax' || scoring === 'softmaxAfterTopk') {
    return onesLike(z);
  }
  if (scoring === 'sigmoid') {
    return sigmoid(neg(z));
  }
  // For small z a series in e = exp(z), because softplus loses digits there on GPUs: sigmoid(z) = e / (1 + e), and
  // softplus(z) = e * (1 - e / 2 + e * e / 3).
  const limit = -4;
  const e = exp(atMost(z, limit));
  const ratio = add(sub(1, mul(e, 0.5)), mul(square(e), 1 / 3));
  const large = maximum(z, limit);
  const isLarge = step(sub(z, limit));
  return mul(select(isLarge, div(sigmoid(large), softplus(large)), div(1, mul(add(1, e), ratio))), 0.5);
}

/** d log(score * slope) / d z. The derivative of the slope is slope * (turnOf - slope). */
export function turnOf(z: Tensor, slope: Tensor, scoring: MoeKernelScoring): Tensor {
  if (scoring === 'softmax' || scoring === 'softmaxAfterTopk') {
    return slope;
  }
  return sub(sigmoid(neg(z)), scoring === 'sigmoid' ? sigmoid(z) : slope);
}
