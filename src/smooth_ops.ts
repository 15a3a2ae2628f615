/**
 * For gradients of gradients: functions that have derivatives of any order. tfjs computes the gradients of its exp and
 * sigmoid from saved outputs, and its tape does not know how these were computed, so the next derivative misses terms
 * without an error. Here gradients are computed from the input, by the functions of this file again.
 */
import {
  cast,
  customGrad,
  exp as coreExp,
  maximum,
  mul,
  neg,
  sigmoid as coreSigmoid,
  softplus as coreSoftplus,
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

/** a where the float32 `mask` is not 0, else b. tfjs's where has no second derivative if its condition depends on x. */
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

/** min(x, limit). tfjs's minimum has a first derivative only; its maximum has derivatives of any order. */
export const atMost = (x: Tensor, limit: number): Tensor => neg(maximum(neg(x), -limit));

/** The result of `f` without a gradient. Not even zeros are computed for its inputs. */
export function fixed(f: () => Tensor): Tensor {
  return customGrad(() => ({value: f(), gradFunc: () => []}))();
}
