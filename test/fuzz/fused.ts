/** fusedExperts and fusedMoe. */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {naiveIds, naiveWeights} from '../naive/topk';
import {callsOf} from './attempt';
import {type Bounded, exact, Sum, type Tolerance, zeros} from './bounded';
import type {Args} from './call';
import {
  type ActivationDraw,
  BACKWARD,
  dotRows,
  EXACT,
  type FeedForward,
  feedForward,
  type FeedForwardGradients,
  FORWARD,
  type MatMul,
  matMul,
  matMulGradients,
  scaleRows,
  sigmoids,
} from './experts';
import {
  activations,
  anyWeights,
  wantedOfWeights,
  weightArgument,
  weightFormats,
  weightInputs,
  type WeightsDraw,
  weightsShape,
} from './grouped_mat_mul';
import {asFloats, asInts, type Drawn, drawn, type Input} from './inputs';
import {anyIndices, floats, goodIndices, logits, maybe, oneOf, ordinaryFloats, someOf} from './numbers';
import {anyIds, rowsOf, tokenAxes, tokenCounts, topks} from './routing';
import {acceptedIds, decidedIds, naiveOptions, type RouterDraw, routerOptions, routers, topkGradient, weightErrors} from './topk';
import {type Wanted, wantedBits, wantedInts, wantedNear} from './wanted';

/** Experts with all options of their computation. */
export type ExpertsDraw = {
  /** Sizes whose product is T. */
  axes: number[];
  size: {numTokens: number; hiddenSize: number; intermediateSize: number; numExperts: number; numLocal: number};
  x: Drawn;
  w1: WeightsDraw;
  w2: WeightsDraw;
  w1Bias: Drawn | undefined;
  w2Bias: Drawn | undefined;
  /** A map of E experts; without it all experts are local. */
  expertMap: Drawn | undefined;
  activation: ActivationDraw;
  weightFormat: tf.MoeWeightFormat | undefined;
  applyRouterWeightOnInput: boolean | undefined;
  /** The experts for every token, F wide. */
  shared: {width: number; w1: Drawn; w2: Drawn; gate: Drawn | undefined} | undefined;
};

const expertsDraws: fc.Arbitrary<ExpertsDraw> = fc
  .record({
    numTokens: tokenCounts,
    axes: tokenAxes,
    hiddenSize: oneOf(1, 2, 3, 4, 5, 8, 16, 36, 40),
    intermediateSize: oneOf(1, 2, 3, 4, 8, 18, 24),
    numLocal: oneOf(1, 2, 3, 4, 8),
    x: drawn(floats),
    w1: anyWeights,
    w2: anyWeights,
    w1Bias: maybe(drawn(ordinaryFloats)),
    w2Bias: maybe(drawn(ordinaryFloats)),
    // How many more experts the map has than are local, and its entries.
    map: maybe(fc.tuple(oneOf(0, 1, 4, 60, 1025), drawn(someOf([1, goodIndices], [1, anyIndices])))),
    activation: activations,
    weightFormat: weightFormats,
    applyRouterWeightOnInput: oneOf(undefined, false, true),
    shared: maybe(
      fc.record({width: oneOf(1, 3, 4), w1: drawn(ordinaryFloats), w2: drawn(ordinaryFloats), gate: maybe(drawn(ordinaryFloats))}),
    ),
  })
  .map(({numTokens, axes, hiddenSize, intermediateSize, numLocal, map, shared, ...draw}) => {
    const gates = draw.activation.gated ? 2 : 1;
    const numColumns = gates * intermediateSize;
    const numExperts = numLocal + (map?.[0] ?? 0);
    return {
      ...draw,
      axes: axes(numTokens),
      size: {numTokens, hiddenSize, intermediateSize, numExperts, numLocal},
      x: draw.x(numTokens * hiddenSize),
      w1: draw.w1([numLocal, numColumns, hiddenSize], draw.weightFormat),
      w2: draw.w2([numLocal, hiddenSize, intermediateSize], draw.weightFormat),
      w1Bias: draw.w1Bias?.(numLocal * numColumns),
      w2Bias: draw.w2Bias?.(numLocal * hiddenSize),
      expertMap: map?.[1](numExperts, numLocal),
      shared: shared && {
        width: shared.width,
        w1: shared.w1(gates * shared.width * hiddenSize),
        w2: shared.w2(hiddenSize * shared.width),
        gate: shared.gate?.(hiddenSize),
      },
    };
  });

function expertInputs(
  {axes, size, x, w1, w2, w1Bias, w2Bias, expertMap, activation, weightFormat, shared}: ExpertsDraw,
): Record<string, Input> {
  const {hiddenSize, intermediateSize, numExperts, numLocal} = size;
  const numColumns = activation.gated ? 2 * intermediateSize : intermediateSize;
  return {
    x: asFloats(x, [...axes, hiddenSize]),
    ...weightInputs('w1_', w1, weightsShape(numLocal, hiddenSize, numColumns, weightFormat)),
    ...weightInputs('w2_', w2, weightsShape(numLocal, intermediateSize, hiddenSize, weightFormat)),
    ...(w1Bias && {w1Bias: asFloats(w1Bias, [numLocal, numColumns])}),
    ...(w2Bias && {w2Bias: asFloats(w2Bias, [numLocal, hiddenSize])}),
    ...(expertMap && {expertMap: asInts(expertMap, [numExperts])}),
    ...(shared && {
      sharedW1: asFloats(shared.w1, weightsShape(1, hiddenSize, shared.w1.values.length / hiddenSize, weightFormat).slice(1)),
      sharedW2: asFloats(shared.w2, weightsShape(1, shared.width, hiddenSize, weightFormat).slice(1)),
    }),
    ...(shared?.gate && {sharedGate: asFloats(shared.gate, [hiddenSize, 1])}),
  };
}

const expertOptions = ({activation, weightFormat, applyRouterWeightOnInput, shared}: ExpertsDraw, args: Args) => ({
  ...activation,
  weightFormat,
  applyRouterWeightOnInput,
  w1Bias: args.w1Bias,
  w2Bias: args.w2Bias,
  expertMap: args.expertMap,
  sharedExperts: shared && {w1: args.sharedW1, w2: args.sharedW2, gate: args.sharedGate},
});

/** The sum of the rows of each token. */
function addRows(sums: Sum[], rows: Bounded, rowSize: number, tokenOf: (row: number) => number, factors?: Bounded): void {
  rows.values.forEach((value, at) => {
    const row = Math.floor(at / rowSize);
    const sum = sums[tokenOf(row) * rowSize + (at % rowSize)];
    sum.add(value, factors?.values[row] ?? 1, rows.errors[at], factors?.errors[row] ?? 0);
  });
}

/** Rows of tokens as rows of their slots. A slot whose expert is not local has 0, and nothing of its token is read. */
function spread(rows: Bounded, rowSize: number, expertOfSlot: number[], topk: number): Bounded {
  const slots = zeros(expertOfSlot.length * rowSize);
  slots.values.forEach((_, at) => {
    const slot = Math.floor(at / rowSize);
    if (expertOfSlot[slot] >= 0) {
      const from = Math.floor(slot / topk) * rowSize + (at % rowSize);
      slots.values[at] = rows.values[from];
      slots.errors[at] = rows.errors[from];
    }
  });
  return slots;
}

type ExpertsGradients = Omit<FeedForwardGradients, 'dx' | 'dFactors'> & {
  dx: Bounded;
  dWeights: Bounded;
  shared?: Omit<FeedForwardGradients, 'dFactors'> & {dGate: Bounded};
};

/** The experts of slots, every slot by itself, with weights that have errors of their own, and the shared experts. */
export function naiveExperts(
  draw: ExpertsDraw,
  ids: number[],
  weights: Bounded,
): {forward: () => Bounded; backward: (dy: number[]) => ExpertsGradients} {
  const {size: {numTokens, hiddenSize, intermediateSize, numExperts, numLocal}, activation} = draw;
  const topk = ids.length / Math.max(1, numTokens);
  const expertOfSlot = ids.map((id) => {
    const expert = id < 0 || id >= numExperts ? -1 : (draw.expertMap?.values[id] ?? id);
    return expert < numLocal ? Math.max(-1, expert) : -1;
  });
  const tokenOf = (slot: number) => Math.floor(slot / topk);
  const isScaled = draw.applyRouterWeightOnInput === true;
  const here = exact(expertOfSlot.map((expert) => (expert >= 0 ? 1 : 0)));
  /** The weights of slots that are read; 0 for slots whose expert is not local. */
  const factors = zeros(ids.length);
  expertOfSlot.forEach((expert, slot) => {
    if (expert >= 0) {
      factors.values[slot] = weights.values[slot];
      factors.errors[slot] = weights.errors[slot];
    }
  });

  const pairOf = (width: number, w1: number[], w2: number[], w1Bias?: number[], w2Bias?: number[]): FeedForward => ({
    first: {
      numIn: hiddenSize,
      numColumns: activation.gated ? 2 * width : width,
      weightFormat: draw.weightFormat ?? 'outIn',
      weights: w1,
      bias: w1Bias,
    },
    second: {numIn: width, numColumns: hiddenSize, weightFormat: draw.weightFormat ?? 'outIn', weights: w2, bias: w2Bias},
    activation,
  });
  const x = exact(draw.x.values);
  const slotsOfX = spread(x, hiddenSize, expertOfSlot, topk);
  const routed = feedForward(
    isScaled ? scaleRows(slotsOfX, hiddenSize, factors, EXACT) : slotsOfX,
    expertOfSlot,
    pairOf(intermediateSize, draw.w1.drawn.values, draw.w2.drawn.values, draw.w1Bias?.values, draw.w2Bias?.values),
  );
  const ofOutput = isScaled ? here : factors;

  const allTokens = new Array<number>(numTokens).fill(0);
  const {shared} = draw;
  const sharedPair = shared && feedForward(x, allTokens, pairOf(shared.width, shared.w1.values, shared.w2.values));
  const toGate: MatMul | undefined = shared?.gate && {
    numIn: hiddenSize, numColumns: 1, weightFormat: 'outIn', weights: shared.gate.values,
  };
  const openness = toGate ? sigmoids(matMul(x, allTokens, toGate)) : {values: exact(allTokens.map(() => 1)), slopes: zeros(numTokens)};

  const sumsOf = (length: number) => Array.from({length}, () => new Sum());
  const total = (sums: Sum[], tolerance: Tolerance): Bounded => {
    const totals = zeros(sums.length);
    sums.forEach((sum, i) => sum.to(totals, i, tolerance));
    return totals;
  };
  return {
    forward: () => {
      const sums = sumsOf(numTokens * hiddenSize);
      addRows(sums, routed.outputs, hiddenSize, tokenOf, ofOutput);
      if (sharedPair != null) {
        addRows(sums, sharedPair.outputs, hiddenSize, (t) => t, openness.values);
      }
      return total(sums, FORWARD);
    },
    backward: (dyValues) => {
      const dy = exact(dyValues);
      const slotsOfDy = spread(dy, hiddenSize, expertOfSlot, topk);
      const {dx: dSlots, dFactors, ...ofRouted} = routed.backward(slotsOfDy, ofOutput);
      const dWeights = isScaled ? dotRows(dSlots, slotsOfX, hiddenSize) : dFactors;
      const sums = sumsOf(numTokens * hiddenSize);
      addRows(sums, dSlots, hiddenSize, tokenOf, isScaled ? factors : undefined);
      if (sharedPair == null) {
        return {...ofRouted, dWeights, dx: total(sums, BACKWARD)};
      }
      const {dFactors: _, ...ofShared} = sharedPair.backward(scaleRows(dy, hiddenSize, openness.values, EXACT));
      addRows(sums, ofShared.dx, hiddenSize, (t) => t);
      const dDots = scaleRows(dotRows(sharedPair.outputs, dy, hiddenSize), 1, openness.slopes, EXACT);
      const ofGate = toGate && matMulGradients(x, dDots, allTokens, toGate);
      if (ofGate != null) {
        addRows(sums, ofGate.dx, hiddenSize, (t) => t);
      }
      return {
        ...ofRouted, dWeights, dx: total(sums, BACKWARD), shared: {...ofShared, dGate: ofGate?.dWeights ?? zeros(0)},
      };
    },
  };
}

/** The gradients to inputs that both ops have. */
function wantedOfExperts(
  {w1Bias, w2Bias, shared}: ExpertsDraw,
  inputs: Record<string, Input>,
  gradients: ExpertsGradients,
): Record<string, Wanted> {
  const wanted = (name: string, gradient: Bounded | undefined) => ({[name]: wantedNear(gradient!, inputs[name].shape)});
  return {
    ...wanted('x', gradients.dx),
    ...wantedOfWeights('w1_', inputs, gradients.dW1),
    ...wantedOfWeights('w2_', inputs, gradients.dW2),
    ...(w1Bias && wanted('w1Bias', gradients.dW1Bias)),
    ...(w2Bias && wanted('w2Bias', gradients.dW2Bias)),
    ...(shared && {...wanted('sharedW1', gradients.shared?.dW1), ...wanted('sharedW2', gradients.shared?.dW2)}),
    ...(shared?.gate && wanted('sharedGate', gradients.shared?.dGate)),
  };
}

const fusedExpertsDraws = fc
  .record({
    experts: expertsDraws,
    topk: topks,
    ids: anyIds,
    weights: drawn(floats),
    dy: maybe(drawn(ordinaryFloats)),
  })
  .map(({experts, topk, ...draw}) => {
    const {numTokens, hiddenSize, numExperts} = experts.size;
    return {
      experts,
      topk,
      ids: draw.ids(numTokens * topk, numExperts),
      weights: draw.weights(numTokens * topk),
      dy: draw.dy?.(numTokens * hiddenSize),
    };
  });

export const fusedExpertsCalls = callsOf(
  4,
  'fusedExperts',
  fusedExpertsDraws,
  ({ids}) => ids.values.length,
  ({experts, topk, ids, weights, dy}) => {
    const {axes, size: {hiddenSize}} = experts;
    const naive = naiveExperts(experts, ids.values, exact(weights.values));
    const inputs = {
      ...expertInputs(experts),
      ids: asInts(ids, [...axes, topk]),
      weights: asFloats(weights, [...axes, topk]),
    };
    return {
      inputs,
      run: (args) => ({
        out: tf.fusedExperts(
          args.x, weightArgument('w1_', args, experts.w1), weightArgument('w2_', args, experts.w2), args.weights, args.ids,
          expertOptions(experts, args),
        ),
      }),
      wanted: () => ({out: wantedNear(naive.forward(), [...axes, hiddenSize])}),
      gradient: dy && {
        of: 'out',
        dy: asFloats(dy, [...axes, hiddenSize]),
        wanted: () => {
          const gradients = naive.backward(dy.values);
          return {
            ...wantedOfExperts(experts, inputs, gradients),
            weights: wantedNear(gradients.dWeights, [...axes, topk]),
          };
        },
      },
    };
  },
);

const fusedMoeDraws = fc
  .record({
    experts: expertsDraws,
    router: routers,
    logits: drawn(logits),
    returnRouting: oneOf(undefined, false, true),
    dy: maybe(drawn(ordinaryFloats)),
  })
  .map(({experts, ...draw}) => {
    const {numTokens, hiddenSize, numExperts} = experts.size;
    return {
      experts,
      router: draw.router(numExperts),
      returnRouting: draw.returnRouting,
      logits: draw.logits(numTokens * numExperts),
      dy: draw.dy?.(numTokens * hiddenSize),
    };
  });

/** The ids and weights of all tokens. If rounding decides the choice, the weights may have any value. */
function route(rows: number[][], router: RouterDraw): {ids: number[]; weights: Bounded} {
  const options = naiveOptions(router);
  const ids = rows.map((row) => naiveIds(row, options));
  const weights = exact(rows.flatMap((row, t) => naiveWeights(row, ids[t], options)));
  rows.forEach((row, t) => {
    const isDecided = decidedIds(row, options) != null;
    const ofToken = Array.from(weights.values.slice(t * router.topk, (t + 1) * router.topk));
    weights.errors.set(isDecided ? weightErrors(ofToken, options) : ofToken.map(() => Infinity), t * router.topk);
  });
  return {ids: ids.flat(), weights};
}

export const fusedMoeCalls = callsOf(
  4,
  'fusedMoe',
  fusedMoeDraws,
  ({experts, router}) => experts.size.numTokens * router.topk,
  ({experts, router, returnRouting, dy, ...draw}) => {
    const {axes, size: {numTokens, hiddenSize, numExperts}} = experts;
    const {topk, bias} = router;
    const rows = rowsOf(draw.logits.values.map((value) => (Math.abs(value) < 2 ** -126 ? 0 : value)), numTokens);
    const {ids, weights} = route(rows, router);
    const isUndecided = weights.errors.some((error) => error === Infinity);
    const naive = naiveExperts(experts, ids, weights);
    const inputs = {
      ...expertInputs(experts),
      logits: asFloats({...draw.logits, values: rows.flat()}, [...axes, numExperts]),
      ...(bias && {bias: asFloats(bias, [numExperts])}),
    };
    return {
      inputs,
      run: (args) => {
        const result = tf.fusedMoe<tf.Rank, boolean>(
          args.x, weightArgument('w1_', args, experts.w1), weightArgument('w2_', args, experts.w2), args.logits, topk,
          {...expertOptions(experts, args), ...routerOptions(router), scoreCorrectionBias: args.bias, returnRouting},
        );
        return result instanceof tf.Tensor ? {output: result} : result;
      },
      wanted: (given) => {
        const out = naive.forward();
        for (let at = 0; at < out.errors.length; at++) {
          const t = Math.floor(at / hiddenSize);
          if (weights.errors.slice(t * topk, (t + 1) * topk).includes(Infinity)) {
            out.errors[at] = Infinity;
          }
        }
        return {
          output: wantedNear(out, [...axes, hiddenSize]),
          ...(returnRouting && {
            topkIds: wantedInts(acceptedIds(rows, given.topkIds, naiveOptions(router)).flat(), [...axes, topk]),
            topkWeights: wantedNear(weights, [...axes, topk]),
          }),
        };
      },
      gradient: dy && !isUndecided ? {
        of: 'output',
        dy: asFloats(dy, [...axes, hiddenSize]),
        wanted: () => {
          const gradients = naive.backward(dy.values);
          const dLogits = zeros(numTokens * numExperts);
          rows.forEach((row, t) => {
            const [values, errors] = [gradients.dWeights.values, gradients.dWeights.errors].map((all) =>
              all.slice(t * topk, (t + 1) * topk));
            const ofToken = topkGradient(row, ids.slice(t * topk, (t + 1) * topk), {values, errors}, naiveOptions(router));
            dLogits.values.set(ofToken.values, t * numExperts);
            dLogits.errors.set(ofToken.errors, t * numExperts);
          });
          return {
            ...wantedOfExperts(experts, inputs, gradients),
            logits: wantedNear(dLogits, [...axes, numExperts]),
            ...(bias && {bias: wantedBits(bias.values.map(() => 0), [numExperts])}),
          };
        },
      } : undefined,
    };
  },
);
