/**
 * Where the weights of a model, beside those of experts, are in the files of its checkpoint. The families have the
 * names of Llama, each those of its layers.
 */
import type {layers} from '@tensorflow/tfjs-layers';
import type {CheckpointWeight} from '../checkpoints/families/layout';
import {named, weight} from '../checkpoints/families/parts';
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

/** A layer, and its weights in files, in the order of the layer. */
export type StoredLayer = {layer: layers.Layer; weights: Map<string, CheckpointWeight>};

/** All layers with weights but experts. `prefix` is the beginning of the names of all tensors but those of the head. */
export function storedLayers(parts: DecoderParts, prefix: string): StoredLayer[] {
  const {embedding, blocks, norm, head} = parts;
  const beforeHead = prefix.replace(/model\.$/, '');
  return [
    storedLayer(embedding, prefix, {embeddings: 'embed_tokens.weight'}),
    ...blocks.flatMap(({attentionNorm, attention, feedForwardNorm, feedForward}, block) => {
      const at = `${prefix}layers.${block}.`;
      const dense = 'experts' in feedForward ? [] : [feedForward];
      return [
        storedLayer(attentionNorm, at, {gamma: 'input_layernorm.weight'}),
        storedLayer(attention, at, attentionTensors),
        storedLayer(feedForwardNorm, at, {gamma: 'post_attention_layernorm.weight'}),
        ...dense.flatMap(({gate, up, down}) => [
          storedLayer(gate, at, {kernel: 'mlp.gate_proj.weight'}),
          storedLayer(up, at, {kernel: 'mlp.up_proj.weight'}),
          storedLayer(down, at, {kernel: 'mlp.down_proj.weight'}),
        ]),
      ];
    }),
    storedLayer(norm, prefix, {gamma: 'norm.weight'}),
    ...(head === embedding ? [] : [storedLayer(head, beforeHead, {embeddings: 'lm_head.weight'})]),
  ];
}

function storedLayer(layer: layers.Layer, at: string, tensors: TensorNames): StoredLayer {
  const weights = layer.weights.map(({originalName, shape: given}): [string, CheckpointWeight] => {
    const name = originalName.slice(originalName.lastIndexOf('/') + 1);
    const shape = given as number[];
    const tensor = at + tensors[name];
    // [out, in], as in torch.nn.Linear.
    const isTransposed = name.endsWith('kernel');
    const [numIn, numOut] = shape;
    return isTransposed
      ? [name, weight(shape, named([numOut, numIn], tensor), {rows: numOut, columns: numIn})]
      : [name, weight(shape, named(shape, tensor))];
  });
  return {layer, weights: new Map(weights)};
}
