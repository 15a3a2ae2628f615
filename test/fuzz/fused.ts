/** fusedExperts and fusedMoe. */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import {naiveIds, naiveWeights} from '../support/naive_topk';
import {callsOf} from './attempt';
import {type Bounded, exact, Sum, zeros} from './bounded';
import type {Args} from './call';
import {activate, activateGradient, type ActivationDraw, BACKWARD, FORWARD, matMul, matMulGradients} from './experts';
import {activations, weightArgument, weightFormats, weightInputs, anyWeights, type WeightsDraw, weightsShape, wantedOfWeights} from './grouped_mat_mul';
import {asFloats, asInts, type Drawn, drawn, type Input} from './inputs';
import {anyIndices, floats, goodIndices, logits, maybe, oneOf, ordinaryFloats, someOf} from './numbers';
import {anyIds, rowsOf, tokenCounts, topks} from './routing';
import {decidedIds, naiveOptions, type RouterDraw, routerOptions, routers, topkGradient, weightErrors} from './topk';
import {type Wanted, wantedBits, wantedNear} from './wanted';

/** Experts with all that says how they compute. */
export type ExpertsDraw = {
  size: {numTokens: number; hiddenSize: number; intermediateSize: number; numExperts: number; numLocal: number};
  x: Drawn;
  w1: WeightsDraw;
  w2: WeightsDraw;
  w1Bias: Drawn | undefined;
  w2Bias: Drawn | undefined;
  /** Of E; without it all are here. */
  expertMap: Drawn | undefined;
  activation: ActivationDraw;
  weightFormat: tf.MoeWeightFormat | undefined;
  applyRouterWeightOnInput: boolean | undefined;
};

const expertsDraws: fc.Arbitrary<ExpertsDraw> = fc
  .record({
    numTokens: tokenCounts,
    hiddenSize: oneOf(1, 2, 3, 4, 5, 8, 16, 36),
    intermediateSize: oneOf(1, 2, 3, 4, 8, 18),
    numLocal: oneOf(1, 2, 3, 4, 8),
    x: drawn(floats),
    w1: anyWeights,
    w2: anyWeights,
    w1Bias: maybe(drawn(ordinaryFloats)),
    w2Bias: maybe(drawn(ordinaryFloats)),
    // Of these experts more than are here.
    map: maybe(fc.tuple(oneOf(0, 1, 4, 60, 1025), drawn(someOf([1, goodIndices], [1, anyIndices])))),
    activation: activations,
    weightFormat: weightFormats,
    applyRouterWeightOnInput: oneOf(undefined, false, true),
  })
  .map(({numTokens, hiddenSize, intermediateSize, numLocal, map, ...draw}) => {
    const numColumns = draw.activation.gated ? 2 * intermediateSize : intermediateSize;
    const numExperts = numLocal + (map?.[0] ?? 0);
    return {
      ...draw,
      size: {numTokens, hiddenSize, intermediateSize, numExperts, numLocal},
      x: draw.x(numTokens * hiddenSize),
      w1: draw.w1(numLocal * numColumns * hiddenSize),
      w2: draw.w2(numLocal * hiddenSize * intermediateSize),
      w1Bias: draw.w1Bias?.(numLocal * numColumns),
      w2Bias: draw.w2Bias?.(numLocal * hiddenSize),
      expertMap: map?.[1](numExperts, numLocal),
    };
  });

function expertInputs({size, x, w1, w2, w1Bias, w2Bias, expertMap, activation, weightFormat}: ExpertsDraw): Record<string, Input> {
  const {numTokens, hiddenSize, intermediateSize, numExperts, numLocal} = size;
  const numColumns = activation.gated ? 2 * intermediateSize : intermediateSize;
  return {
    x: asFloats(x, [numTokens, hiddenSize]),
    ...weightInputs('w1_', w1, weightsShape(numLocal, hiddenSize, numColumns, weightFormat)),
    ...weightInputs('w2_', w2, weightsShape(numLocal, intermediateSize, hiddenSize, weightFormat)),
    ...(w1Bias && {w1Bias: asFloats(w1Bias, [numLocal, numColumns])}),
    ...(w2Bias && {w2Bias: asFloats(w2Bias, [numLocal, hiddenSize])}),
    ...(expertMap && {expertMap: asInts(expertMap, [numExperts])}),
  };
}

const expertOptions = ({activation, weightFormat, applyRouterWeightOnInput}: ExpertsDraw, {w1Bias, w2Bias, expertMap}: Args) => ({
  ...activation, weightFormat, applyRouterWeightOnInput, w1Bias, w2Bias, expertMap,
});

/** The experts of slots whose weights have errors of their own, every slot by itself, and their gradients. */
export function naiveExperts(draw: ExpertsDraw, ids: number[], weights: Bounded) {
  const {size: {numTokens, hiddenSize, intermediateSize, numExperts, numLocal}, activation} = draw;
  const weightFormat = draw.weightFormat ?? 'outIn';
  const topk = ids.length / Math.max(1, numTokens);
  const expertOfSlot = ids.map((id) => {
    const expert = id < 0 || id >= numExperts ? -1 : (draw.expertMap?.values[id] ?? id);
    return expert < numLocal ? Math.max(-1, expert) : -1;
  });
  const tokenOf = (slot: number) => Math.floor(slot / topk);
  const isScaled = draw.applyRouterWeightOnInput === true;

  const x = zeros(ids.length * hiddenSize);
  for (let at = 0; at < x.values.length; at++) {
    const slot = Math.floor(at / hiddenSize);
    const sum = new Sum();
    const value = draw.x.values[tokenOf(slot) * hiddenSize + (at % hiddenSize)];
    sum.add(value, isScaled ? weights.values[slot] : 1, 0, isScaled ? weights.errors[slot] : 0);
    sum.to(x, at, {relative: isScaled ? 2 ** -24 : 0, absolute: 0});
  }
  const first = {
    numIn: hiddenSize,
    numColumns: activation.gated ? 2 * intermediateSize : intermediateSize,
    weightFormat,
    weights: draw.w1.drawn.values,
    bias: draw.w1Bias?.values,
  };
  const second = {
    numIn: intermediateSize,
    numColumns: hiddenSize,
    weightFormat,
    weights: draw.w2.drawn.values,
    bias: draw.w2Bias?.values,
  };
  const z = matMul(x, expertOfSlot, first);
  const hidden = activate(z, expertOfSlot, activation, 'silu');
  const outputs = matMul(hidden, expertOfSlot, second);
  const factors = isScaled ? exact(ids.map(() => 1)) : weights;

  const forward = (): Bounded => {
    const out = zeros(numTokens * hiddenSize);
    for (let at = 0; at < out.values.length; at++) {
      const [t, h] = [Math.floor(at / hiddenSize), at % hiddenSize];
      const sum = new Sum();
      for (let slot = t * topk; slot < (t + 1) * topk; slot++) {
        if (expertOfSlot[slot] >= 0) {
          const from = slot * hiddenSize + h;
          sum.add(factors.values[slot], outputs.values[from], factors.errors[slot], outputs.errors[from]);
        }
      }
      sum.to(out, at, FORWARD);
    }
    return out;
  };

  const backward = (dy: number[]) => {
    const dOutputs = zeros(outputs.values.length);
    const dWeights = zeros(ids.length);
    ids.forEach((_, slot) => {
      const dot = new Sum();
      for (let h = 0; expertOfSlot[slot] >= 0 && h < hiddenSize; h++) {
        const at = slot * hiddenSize + h;
        const dValue = dy[tokenOf(slot) * hiddenSize + h];
        new Sum().add(factors.values[slot], dValue, factors.errors[slot]).to(dOutputs, at, BACKWARD);
        dot.add(outputs.values[at], dValue, outputs.errors[at]);
      }
      if (!isScaled) {
        dot.to(dWeights, slot, BACKWARD);
      }
    });
    const ofSecond = matMulGradients(hidden, dOutputs, expertOfSlot, second);
    const dz = activateGradient(z, ofSecond.dx, expertOfSlot, activation, 'silu');
    const ofFirst = matMulGradients(x, dz, expertOfSlot, first);
    const sums = draw.x.values.map(() => new Sum());
    ids.forEach((_, slot) => {
      const dot = new Sum();
      for (let h = 0; expertOfSlot[slot] >= 0 && h < hiddenSize; h++) {
        const [at, token] = [slot * hiddenSize + h, tokenOf(slot) * hiddenSize + h];
        const [dValue, error] = [ofFirst.dx.values[at], ofFirst.dx.errors[at]];
        sums[token].add(dValue, isScaled ? weights.values[slot] : 1, error, isScaled ? weights.errors[slot] : 0);
        dot.add(dValue, draw.x.values[token], error);
      }
      if (isScaled) {
        dot.to(dWeights, slot, BACKWARD);
      }
    });
    const dx = zeros(draw.x.values.length);
    sums.forEach((sum, at) => sum.to(dx, at, BACKWARD));
    return {dx, dWeights, ofFirst, ofSecond};
  };
  return {forward, backward};
}

/** The gradients to inputs that both ops have. */
function wantedOfExperts(
  draw: ExpertsDraw,
  inputs: Record<string, Input>,
  {dx, ofFirst, ofSecond}: ReturnType<ReturnType<typeof naiveExperts>['backward']>,
): Record<string, Wanted> {
  return {
    x: wantedNear(dx, inputs.x.shape),
    ...wantedOfWeights('w1_', inputs, ofFirst.dWeights),
    ...wantedOfWeights('w2_', inputs, ofSecond.dWeights),
    ...(draw.w1Bias && {w1Bias: wantedNear(ofFirst.dBias, inputs.w1Bias.shape)}),
    ...(draw.w2Bias && {w2Bias: wantedNear(ofSecond.dBias, inputs.w2Bias.shape)}),
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
    const {numTokens, hiddenSize} = experts.size;
    const naive = naiveExperts(experts, ids.values, exact(weights.values));
    const inputs = {
      ...expertInputs(experts),
      ids: asInts(ids, [numTokens, topk]),
      weights: asFloats(weights, [numTokens, topk]),
    };
    return {
      inputs,
      run: (args) => ({
        out: tf.fusedExperts(
          args.x, weightArgument('w1_', args, experts.w1), weightArgument('w2_', args, experts.w2), args.weights, args.ids,
          expertOptions(experts, args),
        ),
      }),
      wanted: () => ({out: wantedNear(naive.forward(), [numTokens, hiddenSize])}),
      gradient: dy && {
        of: 'out',
        dy: asFloats(dy, [numTokens, hiddenSize]),
        wanted: () => {
          const gradients = naive.backward(dy.values);
          return {
            ...wantedOfExperts(experts, inputs, gradients),
            weights: wantedNear(gradients.dWeights, [numTokens, topk]),
          };
        },
      },
    };
  },
);

const fusedMoeDraws = fc
  .record({experts: expertsDraws, router: routers, logits: drawn(logits), dy: maybe(drawn(ordinaryFloats))})
  .map(({experts, ...draw}) => {
    const {numTokens, hiddenSize, numExperts} = experts.size;
    return {
      experts,
      router: draw.router(numExperts),
      logits: draw.logits(numTokens * numExperts),
      dy: draw.dy?.(numTokens * hiddenSize),
    };
  });

/** The ids and weights of all tokens; where rounding decides the choice, weights that may be anything. */
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
  ({experts, router, dy, ...draw}) => {
    const {numTokens, hiddenSize, numExperts} = experts.size;
    const {topk, bias} = router;
    const rows = rowsOf(draw.logits.values.map((value) => (Math.abs(value) < 2 ** -126 ? 0 : value)), numTokens);
    const {ids, weights} = route(rows, router);
    const isUndecided = weights.errors.some((error) => error === Infinity);
    const naive = naiveExperts(experts, ids, weights);
    const inputs = {
      ...expertInputs(experts),
      logits: asFloats({...draw.logits, values: rows.flat()}, [numTokens, numExperts]),
      ...(bias && {bias: asFloats(bias, [numExperts])}),
    };
    return {
      inputs,
      run: (args) => ({
        out: tf.fusedMoe(
          args.x, weightArgument('w1_', args, experts.w1), weightArgument('w2_', args, experts.w2), args.logits, topk,
          {...expertOptions(experts, args), ...routerOptions(router), scoreCorrectionBias: args.bias},
        ),
      }),
      wanted: () => {
        const out = naive.forward();
        for (let at = 0; at < out.errors.length; at++) {
          const t = Math.floor(at / hiddenSize);
          if (weights.errors.slice(t * topk, (t + 1) * topk).includes(Infinity)) {
            out.errors[at] = Infinity;
          }
        }
        return {out: wantedNear(out, [numTokens, hiddenSize])};
      },
      gradient: dy && !isUndecided ? {
        of: 'out',
        dy: asFloats(dy, [numTokens, hiddenSize]),
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
            logits: wantedNear(dLogits, [numTokens, numExperts]),
            ...(bias && {bias: wantedBits(bias.values.map(() => 0), [numExperts])}),
          };
        },
      } : undefined,
    };
  },
);
