import * as tf from '../src/tf';

/** K different experts for each of T tokens, the same in every run. */
export function randomExperts(numTokens: number, topk: number, numExperts: number): Int32Array {
  let state = 12345;
  const next = () => {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const ids = new Int32Array(numTokens * topk);
  const experts = Array.from({length: numExperts}, (_, e) => e);
  for (let t = 0; t < numTokens; t++) {
    for (let k = 0; k < topk; k++) {
      const other = k + Math.floor(next() * (numExperts - k));
      [experts[k], experts[other]] = [experts[other], experts[k]];
      ids[t * topk + k] = experts[k];
    }
  }
  return ids;
}

/** The same as int32 [T, K]. */
export function randomIds(numTokens: number, topk: number, numExperts: number): tf.Tensor2D {
  return tf.tensor2d(randomExperts(numTokens, topk, numExperts), [numTokens, topk], 'int32');
}

/** float32 [rows, columns] of small integers, so that sums are exact; made on the device, without a large upload. */
export function smallIntegers(numRows: number, numColumns: number): tf.Tensor2D {
  const upTo = (limit: number, shape: number[]) => tf.floor(tf.randomUniform(shape, 0, limit, 'float32', 7));
  return tf.add<tf.Tensor2D>(upTo(64, [numRows, 1]), upTo(8, [1, numColumns]));
}
