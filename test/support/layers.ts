/** Layers with the same weights on every backend, and helpers of their specs. */
import * as tf from '../../src/tf';
import {lcg} from './routings';

export type LayerArgs = Parameters<typeof tf.layers.mixtureOfExperts>[0];
export type MoeLayer = ReturnType<typeof tf.layers.mixtureOfExperts>;

/** Numbers in -1..1. */
export function randomTensor(shape: number[], seed: number): tf.Tensor {
  const next = lcg(seed);
  const size = shape.reduce((product, dim) => product * dim, 1);
  return tf.tensor(Float32Array.from({length: size}, () => 2 * next() - 1), shape, 'float32');
}

/** A layer for inputs of H columns, with random weights. */
export function layerOf(args: LayerArgs, hiddenSize: number): MoeLayer {
  const layer = tf.layers.mixtureOfExperts(args);
  layer.build([null, hiddenSize]);
  randomizeWeights(layer);
  return layer;
}

/** Sets all weights of a layer or a model. */
export function randomizeWeights(layer: tf.layers.Layer): void {
  layer.setWeights(layer.weights.map(({shape}, i) => randomTensor(shape as number[], i + 1)));
}

/** The weights of a layer by the last part of their names. */
export const weightsOf = (layer: tf.layers.Layer): Record<string, tf.Tensor> =>
  Object.fromEntries(layer.weights.map((weight) => [weight.originalName.split('/').pop()!, weight.read()]));

/** Runs work on the cpu backend, whose tensors must not leave it. */
export async function onCpu<Result>(work: () => Promise<Result>): Promise<Result> {
  const backendName = tf.getBackend();
  await tf.setBackend('cpu');
  try {
    return await work();
  } finally {
    await tf.setBackend(backendName);
  }
}

export async function savedModel(model: tf.LayersModel): Promise<tf.io.ModelArtifacts> {
  let saved: tf.io.ModelArtifacts | undefined;
  await model.save(
    tf.io.withSaveHandler(async (artifacts) => {
      saved = artifacts;
      return {modelArtifactsInfo: {dateSaved: new Date(), modelTopologyType: 'JSON'}};
    }),
  );
  // The contents of a file: text and bytes.
  return {...saved!, modelTopology: JSON.parse(JSON.stringify(saved!.modelTopology))};
}

export const loadedModel = (artifacts: tf.io.ModelArtifacts): Promise<tf.LayersModel> =>
  tf.loadLayersModel(tf.io.fromMemory(artifacts));

export const valueOf = async (scalar: tf.Tensor): Promise<number> => (await scalar.data())[0];
