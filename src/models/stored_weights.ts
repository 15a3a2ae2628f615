/**
 * Where the weights of a model, beside those of experts, are in the files of its checkpoint. The families have the
 * names of Llama, each those of its layers.
 */
import type {layers} from '@tensorflow/tfjs-layers';
import type {CheckpointWeight} from '../checkpoints/families/layout';
import {named, weight} from '../checkpoints/families/parts';
import {
  float32Encoding,
  quantizedFormats,
  type QuantizedFormat,
  type WeightEncoding,
} from '../contract/quantized_weights';
import {projectionFormatNames} from '../layers/causal_self_attention_options';
import {embeddingsFormatNames} from '../layers/reversible_embedding';
import {type NamedFormat, weightEncodingOf, type WeightFormat, weightFormatOf} from '../layers/weight_format';
import type {DecoderParts} from './decoder';

/** Tensors of a layer, by the names of its weights. */
type TensorNames = {readonly [weightName: string]: string};

const attentionTensors: TensorNames = {
  query_kernel: 'self_attn.q_proj.weight',
  query_bias: 'self_attn.q_proj.bias',
  query_norm: 'self_attn.q_norm.weight',
  key_kernel: 'self_attn.k_proj.weight',
  key_bias: 'self_attn.k_proj.bias',
  key_norm: 'self_attn.k_norm.weight',
  value_kernel: 'self_attn.v_proj.weight',
  value_bias: 'self_attn.v_proj.bias',
  output_kernel: 'self_attn.o_proj.weight',
  output_bias: 'self_attn.o_proj.bias',
  sinks: 'self_attn.sinks',
};

/** A weight of a layer: itself, or codes with their scales and offsets. */
type LayerWeight = {
  /** In messages. */
  name: string;
  /** What the layer calls its tensors: itself, or codes, scales and offsets. */
  tensorNames: string[];
  encoding: WeightEncoding;
  /** Where it is in files. Rows of several matrices stand below each other. */
  matrices: CheckpointWeight[];
};

export type StoredLayer = {layer: layers.Layer; weights: LayerWeight[]};

/** The names of a layer's weights, in its order. tf.layers puts the layer's own name before them. */
export const weightNamesOf = ({weights}: layers.Layer): string[] =>
  weights.map(({originalName}) => originalName.slice(originalName.lastIndexOf('/') + 1));

/** All layers with weights but experts. `prefix` is the beginning of the names of all tensors but those of the head. */
export function storedLayers(parts: DecoderParts, prefix: string): StoredLayer[] {
  const {embedding, blocks, norm, head} = parts;
  const beforeHead = prefix.replace(/model\.$/, '');
  return [
    storedEmbedding(embedding, `${prefix}embed_tokens.weight`),
    ...blocks.flatMap(({attentionNorm, attention, feedForwardNorm, feedForward}, block) => {
      const at = `${prefix}layers.${block}.`;
      const dense = 'experts' in feedForward ? [] : [feedForward];
      return [
        storedLayer(attentionNorm, at, {gamma: 'input_layernorm.weight'}),
        storedAttention(attention, at),
        storedLayer(feedForwardNorm, at, {gamma: 'post_attention_layernorm.weight'}),
        ...dense.flatMap(({gate, up, down}) => [
          storedLayer(gate, at, {kernel: 'mlp.gate_proj.weight'}),
          storedLayer(up, at, {kernel: 'mlp.up_proj.weight'}),
          storedLayer(down, at, {kernel: 'mlp.down_proj.weight'}),
        ]),
      ];
    }),
    storedLayer(norm, prefix, {gamma: 'norm.weight'}),
    ...(head === embedding ? [] : [storedEmbedding(head, `${beforeHead}lm_head.weight`)]),
  ];
}

/** A layer whose weights are all float32. Names of tensors that it does not have are ignored. */
function storedLayer(layer: layers.Layer, at: string, tensors: TensorNames): StoredLayer {
  const names = weightNamesOf(layer);
  const weights = layer.weights.flatMap(({shape: given}, w): LayerWeight[] => {
    const name = names[w];
    if (tensors[name] == null) {
      return [];
    }
    const shape = given as number[];
    const tensor = at + tensors[name];
    // [out, in], as in torch.nn.Linear.
    const isTransposed = name.endsWith('kernel');
    const [numIn, numOut] = shape;
    const matrix = isTransposed
      ? weight(shape, named([numOut, numIn], tensor), {rows: numOut, columns: numIn})
      : weight(shape, named(shape, tensor));
    return [{name, tensorNames: [name], encoding: float32Encoding, matrices: [matrix]}];
  });
  return {layer, weights};
}

function storedEmbedding(layer: layers.Layer, tensor: string): StoredLayer {
  const config = layer.getConfig() as unknown as NamedFormat<typeof embeddingsFormatNames> & {vocabSize: number};
  const format = weightFormatOf(config, embeddingsFormatNames);
  const {weights} = storedLayer(layer, '', {embeddings: tensor});
  return {layer, weights: [...weights, ...inCodes(layer, format, 'embeddings', [[tensor, config.vocabSize]])]};
}

type AttentionConfig = NamedFormat<typeof projectionFormatNames> &
  Record<'numHeads' | 'numKeyValueHeads' | 'headDim', number>;

function storedAttention(layer: layers.Layer, at: string): StoredLayer {
  const config = layer.getConfig() as unknown as AttentionConfig;
  const {numHeads, numKeyValueHeads, headDim} = config;
  const format = weightFormatOf(config, projectionFormatNames);
  const {weights} = storedLayer(layer, at, attentionTensors);
  const {query_kernel: query, key_kernel: key, value_kernel: value, output_kernel: output} = attentionTensors;
  const [querySize, keySize] = [numHeads * headDim, numKeyValueHeads * headDim];
  const inputs = inCodes(layer, format, 'query_key_value', [
    [at + query, querySize],
    [at + key, keySize],
    [at + value, keySize],
  ]);
  const [numOut] = layer.outputShape.slice(-1) as number[];
  return {layer, weights: [...weights, ...inputs, ...inCodes(layer, format, 'output', [[at + output, numOut]])]};
}

/** The weight `name` in codes, if the layer has it, of tensors with so many rows, which stand below each other. */
function inCodes(
  layer: layers.Layer,
  format: WeightFormat,
  name: string,
  tensors: ReadonlyArray<[tensor: string, numRows: number]>,
): LayerWeight[] {
  const names = weightNamesOf(layer);
  const codes = names.indexOf(`${name}_codes`);
  if (codes === -1) {
    return [];
  }
  const [, , numWords] = layer.weights[codes].shape as number[];
  const numIn = (numWords * 32) / quantizedFormats[format.format as QuantizedFormat].bits;
  return [
    {
      name,
      tensorNames: ['codes', 'scales', 'offsets']
        .map((part) => `${name}_${part}`)
        .filter((each) => names.includes(each)),
      encoding: weightEncodingOf(format, numIn),
      matrices: tensors.map(([tensor, numRows]) => weight([1, numRows, numIn], named([numRows, numIn], tensor))),
    },
  ];
}
