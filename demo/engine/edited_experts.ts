/** Experts as a visitor edited them. Edits change no weight: they make other weights of those that are there. */
import * as tf from '@tensorflow/tfjs-core';
import type {Edits} from './settings';

/** Of softmax this leaves 0, and no NaN where every expert is silenced. */
const SILENCE = -1e9;

/** [E]: 0, but as good as -Infinity for silenced experts. */
export const silenceOf = ({silenced}: Edits): tf.Tensor1D =>
  tf.tensor1d(silenced.map((isSilenced) => (isSilenced ? SILENCE : 0)));

export type ExpertWeights = {w1: tf.Tensor3D; w2: tf.Tensor3D};

export function editedExperts({w1, w2}: ExpertWeights, {sources, boosts}: Edits): ExpertWeights {
  const isCloned = sources.some((source, expert) => source !== expert);
  const used = (w: tf.Tensor3D): tf.Tensor3D => (isCloned ? tf.gather(w, tf.tensor1d(sources, 'int32')) : w);
  const isBoosted = boosts.some((boost) => boost !== 1);
  const boosted = isBoosted ? tf.mul<tf.Tensor3D>(used(w2), tf.tensor3d(boosts, [boosts.length, 1, 1])) : used(w2);
  return {w1: used(w1), w2: boosted};
}
