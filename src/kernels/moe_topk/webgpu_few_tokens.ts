/**
 * MoeTopK on WebGPU for few tokens: a workgroup takes a token, and a thread an expert. Each logit is compared with all
 * others, which gives its expert's place among the chosen. That is more work than K rounds, and it waits less: on few
 * workgroups time is what one of them waits for memory and for barriers.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {MoeTopKAttrs} from '../../contract/kernel_names';
import {bitsOf, SCORES_WGSL, SCORING_CODES} from '../router_scores/scorings';
import {repeat} from '../shared/repeat';
import {entryPoint, runWgsl} from '../shared/webgpu';
import {WEIGHTS_WGSL} from './webgpu_weights';

const MAX_TOKENS = 64;
const MAX_SLOTS = 64;
/** Sizes of a workgroup, one of which has a thread for each expert. */
const NUM_THREADS = [64, 128, 256];
/** Quads of keys that a thread reads from workgroup memory before it compares them: one wait instead of as many. */
const QUADS_AT_ONCE = 4;

/** Whether this page serves: there is one group, and no weight depends on a sum over all experts. */
export function isFewTokens([numTokens, numExperts]: number[], attrs: MoeTopKAttrs): boolean {
  const {topk, scoring, renormalize, numExpertGroups} = attrs;
  const isFew = numTokens <= MAX_TOKENS && topk <= MAX_SLOTS && numExperts <= Math.max(...NUM_THREADS);
  return isFew && numExpertGroups === 1 && (renormalize || scoring !== 'softmax');
}

const fewTokensWgsl = /* wgsl */ `
  ${SCORES_WGSL}
  ${WEIGHTS_WGSL}
  // 0 where there is no expert: no float has this key, and every key is larger.
  var<workgroup> keys : array<vec4<u32>, NUM_THREADS / 4>;
  // The chosen experts in order: the key of each one's logit, and log(score).
  var<workgroup> chosenKeys : array<u32, TOPK>;
  var<workgroup> logScores : array<f32, TOPK>;
  var<workgroup> numNan : atomic<u32>;

  // How many experts are before this one: their keys are larger, or the same and of a lower id.
  fn rankOf(key : u32, expert : u32) -> u32 {
    var ranks = vec4<u32>();
    let key4 = vec4(key);
    for (var q = 0u; 4 * q < uniforms.numExperts; q += ${QUADS_AT_ONCE}) {
      ${repeat(QUADS_AT_ONCE, (i) => `let quad${i} = keys[q + ${i}];`)}
      ${repeat(
        QUADS_AT_ONCE,
        (i) => /* wgsl */ `
      let isLower${i} = vec4(4 * (q + ${i})) + vec4(0, 1, 2, 3) < vec4(expert);
      ranks += select(vec4<u32>(), vec4(1u), (quad${i} > key4) | ((quad${i} == key4) & isLower${i}));`,
      )}
    }
    return ranks.x + ranks.y + ranks.z + ranks.w;
  }

  ${entryPoint(
    /* wgsl */ `
    if (group >= uniforms.numTokens) { return; }
    let isExpert = thread < uniforms.numExperts;
    var key = 0u;
    if (isExpert) { key = orderedBits(logits[group * uniforms.numExperts + thread]); }
    keys[thread / 4][thread % 4] = key;
    workgroupBarrier();

    let rank = rankOf(key, thread);
    if (isExpert && rank < TOPK) {
      topkIds[group * TOPK + rank] = thread;
      chosenKeys[rank] = key;
      logScores[rank] = logScore(finiteFloatOfKey(key));
    }
    if (key == NAN_KEY) { atomicAdd(&numNan, 1); }
    workgroupBarrier();

    if (thread >= TOPK) { return; }
    var largest = floatOfKey(FIRST_FINITE_KEY);
    for (var k = 0u; k < TOPK; k++) {
      if (chosenKeys[k] > NEGATIVE_INFINITY_KEY) { largest = max(largest, logScores[k]); }
    }
    var sum = 0.0;
    for (var k = 0u; k < TOPK; k++) {
      if (chosenKeys[k] > NEGATIVE_INFINITY_KEY) { sum += exp(logScores[k] - largest); }
    }
    // The first has the largest key, and NaN is below all.
    let isInfinite = chosenKeys[0] == INFINITY_KEY;
    let isRowNan = uniforms.scoring == SOFTMAX && (atomicLoad(&numNan) > 0 || isInfinite);
    let chosen = chosenOf(largest, sum, isInfinite, isRowNan, chosenKeys[TOPK - 1] == NAN_KEY);
    let own = chosenKeys[thread];
    topkWeights[group * TOPK + thread] = scaledBits(weightOf(own, chosen), own, chosen);`,
    'NUM_THREADS',
  )}`;

export function chooseForFewTokens(
  backend: WebGPUBackend,
  routerLogits: TensorInfo,
  {topk, scoring, renormalize, routedScalingFactor}: MoeTopKAttrs,
  topkWeights: TensorInfo,
  topkIds: TensorInfo,
): void {
  const [numTokens, numExperts] = routerLogits.shape;
  runWgsl(backend, {
    name: 'MoeTopKOfFewTokens',
    buffers: [
      {name: 'topkWeights', type: 'u32', access: 'read_write', tensor: topkWeights},
      {name: 'topkIds', type: 'u32', access: 'read_write', tensor: topkIds},
      {name: 'logits', type: 'u32', access: 'read', tensor: routerLogits},
    ],
    uniforms: {
      numTokens,
      numExperts,
      scoring: SCORING_CODES[scoring],
      isSoftmaxOfChosen: Number(renormalize || scoring === 'softmaxAfterTopk'),
      scalingBits: bitsOf(routedScalingFactor),
    },
    constants: {NUM_THREADS: NUM_THREADS.find((size) => size >= numExperts)!, TOPK: topk},
    numWorkgroups: numTokens,
    code: () => fewTokensWgsl,
  });
}
