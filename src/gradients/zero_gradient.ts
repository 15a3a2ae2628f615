import {type Tensor, zeros} from '@tensorflow/tfjs-core';

/**
 * The gradient of an input that only selects: float32 zeros of its shape. Backprop asks for it whenever the
 * indices come from something differentiable, as top-k ids do.
 */
export function zerosFor(shape: number[]): () => Tensor {
  return () => zeros(shape);
}
