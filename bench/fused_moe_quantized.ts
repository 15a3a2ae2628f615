/** fusedMoe of quantized experts beside float32 ones. */
import * as tf from '../src/tf';
import {NUM_ROUTINGS, numbers} from './fused_moe';
import type {Benchmark} from './harness';
import type {Shape} from './shapes';

const GROUP_SIZE = 32;
/** float32 experts are left out where a tensor of theirs would be larger. */
const MAX_FLOAT_BYTES = 2 ** 31 - 4;

/** Groups of 32 with float16 scales, or those of MXFP4. */
export const quantizationOf = (format: tf.QuantizedFormat): tf.MoeQuantizeWeightsOptions => {
  switch (format) {
    case 'float16':
    case 'bfloat16':
      return {format};
    case 'fp4':
      return {format, groupSize: GROUP_SIZE, scaleFormat: 'e8m0'};
    default:
      return {format, groupSize: GROUP_SIZE, scaleFormat: 'float16'};
  }
};

/** Scales included. */
export const bytesPerWeight: Record<'float32' | tf.QuantizedFormat, number> = {
  float32: 4,
  int4: 0.5 + 2 / GROUP_SIZE,
  fp4: 0.5 + 1 / GROUP_SIZE,
  int8: 1 + 2 / GROUP_SIZE,
  float8: 1 + 2 / GROUP_SIZE,
  float16: 2,
  bfloat16: 2,
};

/** Random weights, of which the float32 form is kept no longer than the conversion takes. */
export function randomQuantized(
  shape: [number, number, number],
  scale: number,
  format: tf.QuantizedFormat,
): tf.QuantizedWeights {
  return tf.tidy(() => tf.moeQuantizeWeights(numbers(shape, scale), quantizationOf(format)));
}

export const fusedMoeOfFormat = (format: tf.QuantizedFormat): Benchmark => ({
  relativeError: 1e-4,

  // At least: the tokens, and the weights of as many experts as random logits choose on average.
  numBytes: ({T, H, K, E, I}) => 8 * T * H + bytesPerWeight[format] * E * (1 - (1 - K / E) ** T) * 3 * I * H,

  numFlops: ({T, H, K, I}) => 6 * T * K * H * I,

  minCopyBytes: 2 ** 29,

  contenders: ({T, H, K, E, I}: Shape) => {
    const x = numbers([T, H], 1) as tf.Tensor2D;
    const logitsOfRoutings = Array.from(
      {length: NUM_ROUTINGS},
      (_, routing) => tf.randomUniform([T, E], -2, 2, 'float32', 5 + routing) as tf.Tensor2D,
    );
    let call = 0;
    const run = (w1: tf.MoeExpertWeights, w2: tf.MoeExpertWeights) => () => [
      tf.fusedMoe(x, w1, w2, logitsOfRoutings[call++ % NUM_ROUTINGS], K),
    ];
    const codes = run(randomQuantized([E, 2 * I, H], H ** -0.5, format), randomQuantized([E, H, I], I ** -0.5, format));
    const hasFloats = 8 * E * I * H <= MAX_FLOAT_BYTES;
    const mebibytes = ((bytesPerWeight[format] * E * 3 * I * H) / 2 ** 20).toFixed(0);
    return [
      {name: `${format}, experts of ${mebibytes} MiB`, kind: 'op', run: codes},
      ...(hasFloats
        ? [
            {
              name: `float32, experts of ${((12 * E * I * H) / 2 ** 20).toFixed(0)} MiB`,
              kind: 'part' as const,
              run: run(numbers([E, 2 * I, H], H ** -0.5), numbers([E, H, I], I ** -0.5)),
            },
          ]
        : []),
    ];
  },
});
