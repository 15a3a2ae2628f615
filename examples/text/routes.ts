/** Which experts the characters of a text go to, as the device chose them. */
import * as tf from '../../src/tf';
import {expertLayers, TOPK} from './model';
import type {TextModel} from './text_model';

/** The experts of a character in a layer, the first one first, and their weights. */
export type Route = {experts: number[]; weights: number[]};

/** The recordings that have not ended. */
const recordings = new WeakMap<tf.LayersModel, {isPaused: boolean}>();

/** Records where the layers of experts send their tokens, until it ends. */
export function recordRoutes(model: tf.LayersModel) {
  const layers = expertLayers(model);
  const recording = {isPaused: false};
  recordings.set(model, recording);
  /** For each layer the router's logits of the last step. */
  const logits: tf.Tensor2D[] = [];
  const drop = (): void => tf.dispose(logits.splice(0));
  layers.forEach((layer, l) =>
    layer.setCallHook((inputs) => {
      if (recording.isPaused) {
        return;
      }
      if (l === 0) {
        drop();
      }
      const [states] = [inputs].flat() as tf.Tensor[];
      const [routerKernel] = layer.getWeights() as tf.Tensor2D[];
      const tokens = tf.reshape<tf.Rank.R2>(states, [-1, routerKernel.shape[0]]);
      logits.push(tf.keep(tf.matMul(tokens, routerKernel)));
    }),
  );
  return {
    numLayers: layers.length,
    /**
     * The routes of each token of the last step, one for each layer. A step that webgpu repeats without calling layers
     * writes its logits into the same tensors, so they stay.
     */
    read: async (): Promise<Route[][]> => {
      const chosen = tf.tidy(() =>
        tf.stack(
          layers.map((layer, l) => {
            const {topkIds, topkWeights} = tf.moeTopk(logits[l], TOPK, {scoreCorrectionBias: correctionBias(layer)});
            return tf.concat([tf.cast(topkIds, 'float32'), topkWeights], 1);
          }),
        ),
      );
      const values = Array.from(await chosen.data());
      chosen.dispose();
      const numTokens = values.length / (layers.length * 2 * TOPK);
      const routeAt = (row: number): Route => {
        const [first, middle] = [2 * TOPK * row, 2 * TOPK * row + TOPK];
        return {experts: values.slice(first, middle), weights: values.slice(middle, middle + TOPK)};
      };
      return Array.from({length: numTokens}, (_, token) => layers.map((__, l) => routeAt(l * numTokens + token)));
    },
    end: (): void => {
      layers.forEach((layer) => layer.clearCallHook());
      recordings.delete(model);
      drop();
    },
  };
}

/** Calls a model that may be speaking, whose recording does not hear of it. */
export function unrecorded<T>(model: tf.LayersModel, call: () => T): T {
  const recording = recordings.get(model);
  if (recording == null) {
    return call();
  }
  recording.isPaused = true;
  try {
    return call();
  } finally {
    recording.isPaused = false;
  }
}

/** The routes of each character of a text that is read at once. The model must not be speaking. */
export async function routesOf({model, alphabet}: TextModel, text: string): Promise<Route[][]> {
  const ids = alphabet.encode(text);
  const routes = recordRoutes(model);
  try {
    tf.tidy(() => void model.predict(tf.tensor2d([ids], [1, ids.length], 'int32')));
    return await routes.read();
  } finally {
    routes.end();
  }
}

/** What the layer adds to the scores for the choice. */
function correctionBias(layer: tf.LayersModel['layers'][number]): tf.Tensor1D | undefined {
  const name = 'score_correction_bias';
  return layer.weights.find((weight) => weight.originalName.endsWith(name))?.read() as tf.Tensor1D | undefined;
}
