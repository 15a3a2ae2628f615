/**
 * The wiring of a decoder of transformer blocks. It is applied to symbolic tensors, which makes the model, and to
 * tensors and caches, which decodes.
 */
import type {layers, LayersModel} from '@tensorflow/tfjs-layers';
import {assert, describeValue} from '../arguments/checks';
import type {CausalSelfAttention} from '../layers/causal_self_attention';

type Layer = layers.Layer;

/** One block of the decoder. */
export type DecoderBlock = {
  attentionNorm: Layer;
  attention: CausalSelfAttention;
  attentionSum: Layer;
  feedForwardNorm: Layer;
  feedForward: {experts: Layer} | DenseParts;
  feedForwardSum: Layer;
};

/** The layers of a feed-forward network for all tokens. */
export type DenseParts = {gate: Layer; up: Layer; product: Layer; down: Layer};

export type DecoderParts = {
  embedding: Layer;
  embeddingScale?: Layer;
  blocks: DecoderBlock[];
  norm: Layer;
  /** The embedding itself, if the head is tied to it. */
  head: Layer;
  logitsScale?: Layer;
};

/** The names of layers. They never change: saved models have them. */
export const decoderLayerNames = {
  embedding: 'embedding',
  embeddingScale: 'embedding_scale',
  norm: 'norm',
  head: 'head',
  logitsScale: 'logits_scale',
} as const;

export const blockLayerNames = (block: number) =>
  ({
    attentionNorm: `layers_${block}_attention_norm`,
    attention: `layers_${block}_attention`,
    attentionSum: `layers_${block}_attention_sum`,
    feedForwardNorm: `layers_${block}_experts_norm`,
    experts: `layers_${block}_experts`,
    gate: `layers_${block}_mlp_gate`,
    up: `layers_${block}_mlp_up`,
    product: `layers_${block}_mlp_product`,
    down: `layers_${block}_mlp_down`,
    feedForwardSum: `layers_${block}_experts_sum`,
  }) as const;

/** The parts of a model, by the names of its layers. */
export function partsOf({layers: all}: Pick<LayersModel, 'layers'>, opName: string): DecoderParts {
  const layerOf = new Map(all.map((layer) => [layer.name, layer]));
  const part = (name: string): Layer => {
    const found = layerOf.get(name);
    assert(
      found != null,
      opName,
      () => `model must be one of moeLanguageModel or loadMoeLanguageModel, but has no layer '${name}'.`,
    );
    return found!;
  };
  const blocks: DecoderBlock[] = [];
  while (blocks.length === 0 || layerOf.has(blockLayerNames(blocks.length).attention)) {
    const names = blockLayerNames(blocks.length);
    blocks.push({
      attentionNorm: part(names.attentionNorm),
      attention: part(names.attention) as CausalSelfAttention,
      attentionSum: part(names.attentionSum),
      feedForwardNorm: part(names.feedForwardNorm),
      feedForward: layerOf.has(names.gate)
        ? {gate: part(names.gate), up: part(names.up), product: part(names.product), down: part(names.down)}
        : {experts: part(names.experts)},
      feedForwardSum: part(names.feedForwardSum),
    });
  }
  const {embedding, embeddingScale, norm, head, logitsScale} = decoderLayerNames;
  return {
    embedding: part(embedding),
    embeddingScale: layerOf.get(embeddingScale),
    blocks,
    norm: part(norm),
    head: layerOf.get(head) ?? part(embedding),
    logitsScale: layerOf.get(logitsScale),
  };
}

/** All layers. */
export function layersOf({embedding, embeddingScale, blocks, norm, head, logitsScale}: DecoderParts): Layer[] {
  const ofBlocks = blocks.flatMap(({feedForward: parts, ...block}) => [
    ...Object.values(block),
    ...Object.values<Layer>(parts),
  ]);
  return [embedding, ...ofBlocks, norm, head, embeddingScale ?? [], logitsScale ?? []].flat();
}

/** Asserts a model with layers, before partsOf looks for them. */
export function assertModel(model: LayersModel, opName: string): void {
  assert(
    Array.isArray(model?.layers),
    opName,
    () => `model must be one of moeLanguageModel or loadMoeLanguageModel, but is ${describeValue(model)}.`,
  );
}

/** Applies a layer to its input, or to its inputs. */
export type Apply<T> = (layer: Layer, input: T | T[]) => T;

/** The hidden states [B, S, H] of ids [B, S]. */
export function hiddenStates<T>({embedding, embeddingScale, blocks}: DecoderParts, ids: T, apply: Apply<T>): T {
  let states = apply(embedding, ids);
  states = embeddingScale == null ? states : apply(embeddingScale, states);
  for (const block of blocks) {
    const attended = apply(block.attention, apply(block.attentionNorm, states));
    states = apply(block.attentionSum, [states, attended]);
    const output = feedForward(block, apply(block.feedForwardNorm, states), apply);
    states = apply(block.feedForwardSum, [states, output]);
  }
  return states;
}

function feedForward<T>({feedForward: parts}: DecoderBlock, states: T, apply: Apply<T>): T {
  if ('experts' in parts) {
    return apply(parts.experts, states);
  }
  return apply(parts.down, apply(parts.product, [apply(parts.gate, states), apply(parts.up, states)]));
}

/** The logits [B, S, V] of hidden states [B, S, H]. */
export function logitsOf<T>({norm, head, logitsScale}: DecoderParts, states: T, apply: Apply<T>): T {
  const logits = apply(head, apply(norm, states));
  return logitsScale == null ? logits : apply(logitsScale, logits);
}
