import {type Tensor, zeros} from '@tensorflow/tfjs-core';

/**
 * The gradient of an input that only selects: float32 zeros of its shape. Backprop asks for it if the indices were
 * computed from something differentiable, like the ids of top-k.
 */
export function zerosFor(shape: number[]): () => Tensor {
  return () => zeros(shape);
}
