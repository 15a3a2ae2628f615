/** Tokens of recorded steps, beside tokens of steps that are not recorded. */
import {generate} from '../../src/models/index';
import type * as tf from '../../src/tf';

export const PROMPT = [5, 9, 30, 2];

/** What layers are applied to while a token comes. */
export function countApplications(model: tf.LayersModel): () => number {
  let count = 0;
  for (const layer of model.layers) {
    const apply = layer.apply.bind(layer);
    layer.apply = (...args) => {
      count++;
      return apply(...args);
    };
  }
  return () => count;
}

/** The tokens that a model says after each other, where each is asked for alone. */
export async function oneAtATime(model: tf.LayersModel, numTokens: number): Promise<number[]> {
  const ids = [...PROMPT];
  for (let token = 0; token < numTokens; token++) {
    ids.push(...(await generate(model, ids, {maxNewTokens: 1, capacity: 16})));
  }
  return ids.slice(PROMPT.length);
}
