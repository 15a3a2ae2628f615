/**
 * Functions that have derivatives of any order. tfjs computes the gradients of its exp, sigmoid and softmax from
 * outputs that it saved, and its tape does not know where these come from: the next derivative misses terms, without
 * an error. Here they are made of the input, by the same functions again.
 */
import {
  cast,
  customGrad,
  exp as coreExp,
  expandDims,
  logSumExp as coreLogSumExp,
  maximum,
  mul,
  neg,
  sigmoid as coreSigmoid,
  softmax as coreSoftmax,
  softplus as coreSoftplus,
  sub,
  sum,
  type Tensor,
  where,
  zerosLike,
} from '@tensorflow/tfjs-core';

function smooth(value: (x: Tensor) => Tensor, gradient: (dy: Tensor, x: Tensor) => Tensor): (x: Tensor) => Tensor {
  return customGrad((...args) => {
    const [x, save] = args as unknown as [Tensor, (tensors: Tensor[]) => void];
    save([x]);
    return {value: value(x), gradFunc: (dy: Tensor, [saved]: Tensor[]) => gradient(dy, saved)};
  });
}

export const exp: (x: Tensor) => Tensor = /* @__PURE__ */ smooth(coreExp, (dy, x) => mul(dy, exp(x)));

export const sigmoid: (x: Tensor) => Tensor = /* @__PURE__ */ smooth(coreSigmoid, (dy, x) =>
  mul(dy, mul(sigmoid(x), sigmoid(neg(x)))),
);

export const softplus = /* @__PURE__ */ smooth(coreSoftplus, (dy, x) => mul(dy, sigmoid(x)));

/** Along axis 1 of [T, E], as logSumExp is. */
export const softmax: (x: Tensor) => Tensor = /* @__PURE__ */ smooth(
  (x) => coreSoftmax(x, 1),
  (dy, x) => {
    const y = softmax(x);
    return mul(y, sub(dy, sum(mul(dy, y), 1, true)));
  },
);

export const logSumExp = /* @__PURE__ */ smooth(
  (x) => coreLogSumExp(x, 1),
  (dy, x) => mul(expandDims(dy, 1), softmax(x)),
);

/** a where the float32 `mask` is not 0, else b. tfjs's where has no second derivative if its condition is of x, too. */
export const select: (mask: Tensor, a: Tensor, b: Tensor) => Tensor = /* @__PURE__ */ customGrad((...args) => {
  const [mask, a, b, save] = args as unknown as [Tensor, Tensor, Tensor, (tensors: Tensor[]) => void];
  save([mask]);
  return {
    value: where(cast(mask, 'bool'), a, b),
    gradFunc: (dy: Tensor, [saved]: Tensor[]) => [
      zerosLike(saved),
      select(saved, dy, zerosLike(dy)),
      select(saved, zerosLike(dy), dy),
    ],
  };
});

/** tfjs's minimum has a first derivative only, its maximum has all. */
export const atMost = (x: Tensor, limit: number): Tensor => neg(maximum(neg(x), -limit));
