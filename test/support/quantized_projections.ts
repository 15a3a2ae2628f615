/** Attention with kernels in codes, and a float32 layer that has their values. */
import type {CausalSelfAttention} from '../../src/layers/index';
import * as tf from '../../src/tf';
import {type AttentionCase, attentionLayer} from './attention_cases';
import {weightsOf} from './layers';

export type Quantization = NonNullable<Parameters<typeof tf.moeQuantizeWeights>[1]>;

/** Sets weights by their names. */
export const setNamed = (layer: tf.layers.Layer, values: Record<string, tf.Tensor | undefined>): void =>
  layer.setWeights(Object.keys(weightsOf(layer)).map((name) => values[name]!));

/** The tensors of quantized weights, by the names that they have in a layer. */
export const namedCodes = (name: string, {codes, scales, offsets}: tf.QuantizedWeights): Record<string, tf.Tensor | undefined> =>
  ({[`${name}_codes`]: codes, [`${name}_scales`]: scales, [`${name}_offsets`]: offsets});

export const projectionArgs = ({format = 'int4', groupSize, scaleFormat, symmetric}: Quantization) => ({
  projectionFormat: format, projectionGroupSize: groupSize, projectionScaleFormat: scaleFormat, useProjectionOffsets: symmetric === false,
});

export function attentionPair(
  {args, hiddenSize}: Pick<AttentionCase, 'args' | 'hiddenSize'>, options: Quantization,
): {quantized: CausalSelfAttention; standIn: CausalSelfAttention} {
  const standIn = attentionLayer({args, hiddenSize});
  const values: Record<string, tf.Tensor> = weightsOf(standIn);
  const kernels = ['query_kernel', 'key_kernel', 'value_kernel'];
  const sizes = kernels.map((name) => values[name].shape[1]!);
  const quantize = (kernel: tf.Tensor) => tf.moeQuantizeWeights(tf.expandDims(tf.transpose(kernel)), options);
  const [inputs, output] = [quantize(tf.concat(kernels.map((name) => values[name]), 1)), quantize(values.output_kernel)];
  const quantized = tf.layers.causalSelfAttention({...args, ...projectionArgs(options)});
  quantized.build([null, null, hiddenSize]);
  setNamed(quantized, {...values, ...namedCodes('query_key_value', inputs), ...namedCodes('output', output)});
  const kernelOf = (weights: tf.QuantizedWeights) => tf.transpose(tf.squeeze(tf.moeDequantizeWeights(weights), [0]));
  const dequantized = tf.split(kernelOf(inputs), sizes, 1);
  setNamed(standIn, {...values, ...Object.fromEntries(kernels.map((name, k) => [name, dequantized[k]])), output_kernel: kernelOf(output)});
  return {quantized, standIn};
}
