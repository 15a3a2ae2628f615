/** The layer, in prediction and in a step of training. */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {randomizeWeights, randomTensor, weightsOf} from '../support/layers';
import {naiveIds, naiveWeights} from '../naive/topk';
import type {Attempts} from './attempt';
import {assertNoDeviceErrors, assertSameMemory, memoryInUse, valuesOf} from './backend';
import {type Bounded, exact, zeros} from './bounded';
import {matMul} from './experts';
import {type ExpertsDraw, naiveExperts} from './fused';
import {activations} from './grouped_mat_mul';
import {oneOf} from './numbers';
import {rowsOf} from './routing';
import {scorings} from './topk';
import {assertWanted, wantedNear} from './wanted';

const layerDraws = fc
  .record({
    numTokens: oneOf(1, 2, 5, 9),
    hiddenSize: oneOf(1, 3, 4, 8),
    intermediateSize: oneOf(1, 2, 4),
    numExperts: oneOf(1, 2, 3, 8),
    numZeroExperts: oneOf(0, 0, 1, 3),
    topk: oneOf(1, 2, 3),
    scoring: scorings,
    renormalize: oneOf(undefined, false, true),
    activation: activations.filter(({gateUp, swigluAlpha, swigluLimit}) => gateUp == null && swigluAlpha == null && swigluLimit == null),
    applyRouterWeightOnInput: fc.boolean(),
    useBias: fc.boolean(),
    useRouterBias: fc.boolean(),
    capacityFactor: oneOf(undefined, 0.5, 1.25),
    seed: fc.nat({max: 1000}),
  })
  .map((draw) => ({...draw, topk: Math.min(draw.topk, draw.numExperts + draw.numZeroExperts)}));
type LayerDraw = typeof layerDraws extends fc.Arbitrary<infer Draw> ? Draw : never;

async function predicted(draw: LayerDraw, weights: Record<string, number[]>, x: number[]): Promise<Bounded> {
  const {numTokens, hiddenSize, intermediateSize, numExperts, numZeroExperts, topk, scoring, renormalize, activation, applyRouterWeightOnInput} = draw;
  const router = {numIn: hiddenSize, numColumns: numExperts + numZeroExperts, weightFormat: 'inOut' as const, weights: weights.router_kernel, bias: weights.router_bias};
  const logits = matMul(exact(x), new Array<number>(numTokens).fill(0), router);
  const rows = rowsOf(Array.from(logits.values), numTokens);
  const options = {topk, scoring, renormalize};
  const ids = rows.map((row) => naiveIds(row, options));
  const routed = zeros(numTokens * topk);
  rows.forEach((row, t) => {
    const sorted = [...row].sort((a, b) => a - b);
    const isDecided = sorted.every((value, i) => i === 0 || value - sorted[i - 1] > 1e-3);
    naiveWeights(row, ids[t], options).forEach((weight, k) => {
      routed.values[t * topk + k] = weight;
      routed.errors[t * topk + k] = isDecided ? 1e-4 : Infinity;
    });
  });
  const given = (values: number[] | undefined) => values && {values, source: 'host' as const};
  const experts: ExpertsDraw = {
    axes: [numTokens],
    size: {numTokens, hiddenSize, intermediateSize, numExperts, numLocal: numExperts},
    x: {values: x, source: 'host'},
    w1: {drawn: given(weights.w1)!, isInParts: false},
    w2: {drawn: given(weights.w2)!, isInParts: false},
    w1Bias: given(weights.w1_bias),
    w2Bias: given(weights.w2_bias),
    expertMap: undefined,
    activation,
    weightFormat: 'outIn',
    applyRouterWeightOnInput,
    shared: undefined,
  };
  const forward = naiveExperts(experts, ids.flat(), routed).forward();
  ids.flat().forEach((id, slot) => {
    for (let h = 0; id >= numExperts && h < hiddenSize; h++) {
      const at = Math.floor(slot / topk) * hiddenSize + h;
      const term = routed.values[slot] * x[at];
      forward.values[at] += term;
      forward.errors[at] += routed.errors[slot] * Math.abs(x[at]) + 1e-6 * Math.abs(term);
    }
  });
  return forward;
}

async function checkLayer(draw: LayerDraw): Promise<void> {
  const before = await memoryInUse();
  const {numTokens, hiddenSize, seed, activation: {activation = 'linear', gated}, ...args} = draw;
  const xs = randomTensor([numTokens, hiddenSize], seed);
  const layer = tf.layers.mixtureOfExperts({...args, activation, gated});
  layer.build([null, hiddenSize]);
  tf.tidy(() => randomizeWeights(layer));
  const model = tf.sequential({layers: [tf.layers.inputLayer({inputShape: [hiddenSize]}), layer]});
  const y = model.predict(xs) as tf.Tensor;
  try {
    const names = Object.keys(weightsOf(layer));
    const read = await Promise.all(names.map((name) => valuesOf(weightsOf(layer)[name])));
    const weights = Object.fromEntries(names.map((name, i) => [name, Array.from(read[i])]));
    const wanted = await predicted({...draw, activation: {...draw.activation, activation, gateUp: 'concatenated'}}, weights, Array.from(await valuesOf(xs)));
    assertWanted('y', y, await valuesOf(y), wantedNear(wanted, [numTokens, hiddenSize]));
    model.compile({optimizer: 'sgd', loss: 'meanSquaredError'});
    const loss = (await model.trainOnBatch(xs, xs)) as number;
    if (!Number.isFinite(loss)) {
      throw new Error(`the loss is ${loss}`);
    }
  } finally {
    model.dispose();
    tf.dispose([xs, y]);
  }
  assertSameMemory(before, await memoryInUse());
  await assertNoDeviceErrors();
}

export const layers: Attempts = {
  weight: 1,
  arbitrary: layerDraws.map((input) => ({
    name: 'mixtureOfExperts',
    input,
    numAssignments: input.numTokens * input.topk,
    check: () => checkLayer(input),
  })),
};
