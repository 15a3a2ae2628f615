/** A block that is given to be written: a layer, or what moeCheckpoint returned. */
import {Tensor, util} from '@tensorflow/tfjs-core';
import {assert, describeValue, isPlainObject} from '../../arguments/checks';
import {convertQuantizedWeights, isQuantized} from '../../arguments/quantized_weights';
import {type WeightName, weightNames} from '../../contract/block_weights';
import type {WeightTensors} from '../../contract/expert_weights';
import {float32Encoding, type WeightEncoding} from '../../contract/quantized_weights';
import type {CheckpointLayout} from '../families/layout';
import type {MoeCheckpoint} from '../moe_checkpoint';
import {
  assertBuilt,
  encodingInLayer,
  expectedInLayer,
  type MoeWeightsLayer,
  problemsOfLayer,
  tensorNames,
  weightsOf,
} from '../moe_weights_layer';
import {matricesOf} from './matrices';

/** A weight on the device, in one part or several. */
export type GivenWeight = {encoding: WeightEncoding; parts: Array<WeightTensors<Tensor>>};

export type GivenBlock = {
  /** In messages. */
  name: string;
  problems: (layout: CheckpointLayout, opName: string) => string[];
  /** Undefined if the block has no such weight. */
  weight: (name: WeightName, numIn: number) => GivenWeight | undefined;
};

const isLayer = (given: MoeWeightsLayer | MoeCheckpoint): given is MoeWeightsLayer => !isPlainObject(given);

export function blockOf(given: MoeWeightsLayer | MoeCheckpoint, argName: string, opName: string): GivenBlock {
  if (isLayer(given)) {
    assertBuilt(given, opName);
    return blockOfLayer(given);
  }
  assert(
    given.routerKernel instanceof Tensor && given.options != null,
    opName,
    () => `${argName} must be a MixtureOfExperts layer or a result of moeCheckpoint, but is ${describeValue(given)}.`,
  );
  return blockOfCheckpoint(given, argName, opName);
}

/** How the block differs from what the layout asks for. */
export const problemsOfBlock = (block: GivenBlock, layout: CheckpointLayout, opName: string): string[] =>
  block.problems(layout, opName);

function blockOfLayer(layer: MoeWeightsLayer): GivenBlock {
  return {
    name: `layer '${layer.name}'`,
    problems: (layout, opName) => problemsOfLayer(layer, expectedInLayer(layer, weightsIn(layout)), layout, opName),
    weight: (name, numIn) => {
      const tensors = layer.getWeights();
      const tensorOf = new Map(weightsOf(layer).map((weight, w) => [weight.name, tensors[w]]));
      const encoding = encodingInLayer(layer, name, numIn);
      const names = tensorNames(name, encoding);
      const [weights, scales, offsets] = names.map((each) => tensorOf.get(each));
      return weights == null ? undefined : {encoding, parts: [{weights, scales, offsets}]};
    },
  };
}

const weightsIn = ({weights}: CheckpointLayout) =>
  weightNames.flatMap((name): Array<[WeightName, {shape: number[]; numIn: number}]> => {
    const weight = weights[name];
    return weight == null ? [] : [[name, {shape: weight.shape, numIn: matricesOf(weight).numIn}]];
  });

function blockOfCheckpoint(checkpoint: MoeCheckpoint, argName: string, opName: string): GivenBlock {
  const {routerKernel, routerBias, w1, w2, topk, options} = checkpoint;
  const {w1Bias, w2Bias, scoreCorrectionBias, sharedExperts, ...routing} = options;
  const given: Partial<Record<WeightName, MoeCheckpoint['w1'] | Tensor>> = {
    router_kernel: routerKernel,
    router_bias: routerBias,
    w1,
    w1_bias: w1Bias,
    w2,
    w2_bias: w2Bias,
    shared_w1: sharedExperts?.w1,
    shared_w2: sharedExperts?.w2,
    shared_gate: sharedExperts?.gate,
    score_correction_bias: scoreCorrectionBias,
  };
  const weight = (name: WeightName): (GivenWeight & {shape: number[]}) | undefined => {
    const experts = given[name];
    if (experts == null) {
      return undefined;
    }
    if (isQuantized(experts)) {
      const {encoding, parts, numExperts, numOut, numIn} = convertQuantizedWeights(
        experts,
        `${argName}.${name}`,
        'outIn',
        opName,
      );
      const tensors = parts.map(({codes, scales, offsets}) => ({weights: codes, scales, offsets}));
      return {encoding, parts: tensors, shape: [numExperts, numOut, numIn]};
    }
    const parts = (Array.isArray(experts) ? experts : [experts]) as Tensor[];
    const shape = [parts.reduce((sum, part) => sum + part.shape[0], 0), ...parts[0].shape.slice(1)];
    return {encoding: float32Encoding, parts: parts.map((weights) => ({weights})), shape};
  };
  return {
    name: argName,
    weight,
    problems: (layout) => {
      const problems = weightNames.flatMap((name) => {
        const wanted = layout.weights[name]?.shape;
        const shape = weight(name)?.shape;
        const isRight = wanted == null || shape == null ? wanted === shape : util.arraysEqual(wanted, shape);
        return isRight ? [] : [`${name}: expected ${shown(wanted)}, but is ${shown(shape)}`];
      });
      const expected: {[name: string]: unknown} = {...layout.routing, topk: layout.topk};
      const actual: {[name: string]: unknown} = {...routing, topk};
      for (const name of new Set([...Object.keys(expected), ...Object.keys(actual)])) {
        if (expected[name] !== actual[name]) {
          problems.push(`${name}: expected ${String(expected[name])}, but is ${String(actual[name])}`);
        }
      }
      return problems;
    },
  };
}

const shown = (shape: number[] | undefined) => (shape == null ? 'none' : `[${shape}]`);
