/** The weights of a mixtureOfExperts layer, as checkpoints are read into them and written from them. */
import {type Tensor, util} from '@tensorflow/tfjs-core';
import {checkActivation} from '../arguments/experts';
import {assert, describeValue} from '../arguments/checks';
import {sizeOfGroups} from '../arguments/quantized_weights';
import {checkRouting} from '../arguments/routing';
import type {LayerWeightName, WeightName} from '../contract/block_weights';
import {
  encodingOf,
  float32Encoding,
  isQuantizedEncoding,
  type QuantizedFormat,
  quantizedShapes,
  type ScaleFormat,
  type WeightEncoding,
} from '../contract/quantized_weights';
import type {CheckpointLayout} from './layouts';
import {layerConfigOf, type MoeLayerConfig} from './moe_layer_config';

/** The parts of a layer that loadMoeCheckpoint and moeCheckpointFiles use. MixtureOfExperts has them. */
export type MoeWeightsLayer = {
  /** The name in messages. */
  name: string;
  /** The arguments that determine what the layer computes. They are compared with config.json. */
  getConfig(): {[key: string]: unknown};
  /** Names and shapes of the weights, in the order of setWeights. The layer's own name may stand before a weight's. */
  readonly weights: ReadonlyArray<{originalName: string; shape: ReadonlyArray<number | null>}>;
  /** Called once, with all weights. */
  setWeights(weights: Tensor[]): void;
  /** The weights, in the same order. */
  getWeights(): Tensor[];
};

/** Arguments of a layer of which a checkpoint may say nothing. */
type LayerArgs = MoeLayerConfig & {numZeroExperts?: number; applyRouterWeightOnInput?: boolean};

/** The arguments that determine what a layer computes, each in one spelling. */
function computedBy(args: LayerArgs, opName: string) {
  const {numZeroExperts = 0, applyRouterWeightOnInput = false} = args;
  const {renormalize, ...routing} = checkRouting(args.numExperts + numZeroExperts, args.topk, args, opName);
  const renormalizes = renormalize && routing.scoring !== 'softmaxAfterTopk';
  const {activation, gated, swigluAlpha, swigluLimit} = checkActivation(args, opName);
  const ofActivation = {swigluAlpha: activation === 'swigluOai' ? swigluAlpha : undefined, swigluLimit};
  const ofExperts = {activation, gated, ...ofActivation, numZeroExperts, applyRouterWeightOnInput};
  return {...routing, renormalize: renormalizes, ...ofExperts};
}

/** How a MixtureOfExperts computes differently from config.json although its weights have the same shapes. */
function differencesInArgs(layer: MoeWeightsLayer, layout: CheckpointLayout, opName: string): string[] {
  const args = layer.getConfig();
  if (args.numExperts === undefined) {
    return [];
  }
  const given = computedBy(args as LayerArgs, opName);
  const expected = computedBy(layerConfigOf(layout), opName);
  const hasOtherActivation = given.activation !== expected.activation;
  return (Object.keys(expected) as Array<keyof typeof expected>).flatMap((name) =>
    given[name] === expected[name] || (hasOtherActivation && name.startsWith('swiglu'))
      ? []
      : [`${name}: expected ${expected[name]}, but the layer has ${given[name]}`],
  );
}

/** How a MixtureOfExperts stores its experts: the arguments of its config. Other layers have none of them. */
export type LayerExpertFormat = {
  /** How a code stands for a number. */
  expertFormat?: 'float32' | QuantizedFormat;
  /** How many inputs share a scale; null or absent without scales. */
  expertGroupSize?: number | null;
  /** How scales and offsets are stored; null or absent without scales. */
  expertScaleFormat?: ScaleFormat | null;
  /** The code that stands for 0; null or absent with offsets, and for other formats than integers. */
  expertZeroPoint?: number | null;
  /** Whether groups have offsets in place of a zero point. */
  useExpertOffsets?: boolean;
};

function layerEncoding(
  {expertFormat, expertGroupSize, expertScaleFormat, expertZeroPoint, useExpertOffsets}: LayerExpertFormat,
  numIn: number,
): WeightEncoding {
  return expertFormat == null || expertFormat === 'float32'
    ? float32Encoding
    : encodingOf<WeightEncoding>({
        format: expertFormat,
        groupSize: sizeOfGroups(expertGroupSize ?? 0, numIn),
        scaleFormat: expertScaleFormat ?? 'float32',
        zeroPoint: expertZeroPoint ?? 0,
        hasOffsets: useExpertOffsets ?? false,
      });
}

/** What the layer has for a weight: itself, or its codes, and then the scales and offsets of the encoding. */
export function tensorNames(name: WeightName, encoding: WeightEncoding): LayerWeightName[] {
  if (!isQuantizedEncoding(encoding)) {
    return [name];
  }
  const parts = ['codes', ...(encoding.groupSize > 0 ? ['scales'] : []), ...(encoding.hasOffsets ? ['offsets'] : [])];
  return parts.map((part) => `${name}_${part}` as LayerWeightName);
}

/** The weights of a layer. tf.layers puts the layer's own name before a weight's name. */
export const weightsOf = ({weights}: MoeWeightsLayer) =>
  weights.map(({originalName, shape}) => ({
    name: originalName.slice(originalName.lastIndexOf('/') + 1) as LayerWeightName,
    shape: shape as number[],
  }));

/** Asserts a built layer. */
export function assertBuilt(layer: MoeWeightsLayer, opName: string): void {
  assert(
    Array.isArray(layer?.weights) && typeof layer.getConfig === 'function' && typeof layer.setWeights === 'function',
    opName,
    () => `layer must be a MixtureOfExperts layer, but is ${describeValue(layer)}.`,
  );
  assert(
    layer.weights.length > 0,
    opName,
    () => `layer '${layer.name}' must be built, but has no weights. Call it, or its model, once first.`,
  );
}

/** How the layer stores a weight of the block. */
export function encodingInLayer(layer: MoeWeightsLayer, name: WeightName, numIn: number): WeightEncoding {
  const isOfExperts = name === 'w1' || name === 'w2';
  return isOfExperts ? layerEncoding(layer.getConfig() as LayerExpertFormat, numIn) : float32Encoding;
}

/** The weights that a layer must have for this block, by their names there, and their shapes. */
export function expectedInLayer(
  layer: MoeWeightsLayer,
  weights: Iterable<[WeightName, {shape: number[]; numIn: number}]>,
): Map<LayerWeightName, number[]> {
  const expected = new Map<LayerWeightName, number[]>();
  for (const [name, {shape, numIn}] of weights) {
    const encoding = encodingInLayer(layer, name, numIn);
    const shapes = isQuantizedEncoding(encoding) ? quantizedShapes(shape, encoding) : {codes: shape, scales: shape};
    tensorNames(name, encoding).forEach((each, t) => expected.set(each, t === 0 ? shapes.codes : shapes.scales));
  }
  return expected;
}

/** How the layer's weights and arguments differ from those that the block asks for. */
export function problemsOfLayer(
  layer: MoeWeightsLayer,
  expected: ReadonlyMap<LayerWeightName, number[]>,
  layout: CheckpointLayout,
  opName: string,
): string[] {
  const layerWeights = weightsOf(layer);
  const problems = layerWeights.flatMap(({name, shape}) => {
    const wanted = expected.get(name);
    if (wanted == null) {
      return name === 'score_correction_bias' ? [] : [`${name} [${shape}]: the checkpoint has none`];
    }
    return util.arraysEqual(shape, wanted) ? [] : [`${name}: expected [${wanted}], but the layer has [${shape}]`];
  });
  for (const [name, shape] of expected) {
    if (!layerWeights.some((weight) => weight.name === name)) {
      problems.push(`${name} [${shape}]: the layer has none`);
    }
  }
  return [...problems, ...differencesInArgs(layer, layout, opName)];
}
