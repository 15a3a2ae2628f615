import {cast, type Tensor} from '@tensorflow/tfjs-core';
import type {layers} from '@tensorflow/tfjs-layers';
import {checkOptions} from '../arguments/checks';
import type {BaseLayerClass} from './base_layer';
import {checkArgsOfEveryLayer, type LayerArgs, layerArgNames} from './layer_arguments';
import {lastAxis, type Shape} from './layer_calls';
import {checkPositive} from './numbers';
import {rmsNorm} from './rms_norm';
import {type PartsOf, resolveWeightParts, type TfjsLayers} from './weight_parts';

type DenseArgs = Parameters<typeof layers.dense>[0];

export type RmsNormalizationArgs = LayerArgs & {
  /** What is added to the mean of squares. Default 1e-6. */
  epsilon?: number | null;
  /** The initializer of gamma. Default `'ones'`. */
  gammaInitializer?: DenseArgs['kernelInitializer'] | null;
  /** The regularizer of gamma. */
  gammaRegularizer?: DenseArgs['kernelRegularizer'] | null;
  /** The constraint of gamma. */
  gammaConstraint?: DenseArgs['kernelConstraint'] | null;
};

const weightArgParts = {
  gammaInitializer: 'kernelInitializer',
  gammaRegularizer: 'kernelRegularizer',
  gammaConstraint: 'kernelConstraint',
} as const;
const argNames = ['epsilon', 'gammaInitializer', 'gammaRegularizer', 'gammaConstraint', ...layerArgNames] as const;

const opName = 'rmsNormalization';

/**
 * RMS normalization for tf.layers: x / sqrt(mean(x^2) + epsilon) * gamma, with the mean over the last axis. The input
 * is [..., H] of rank 2 or more, and the output has the same shape.
 *
 * ```js
 * const norm = tf.layers.rmsNormalization({epsilon: 1});
 * const normalized = norm.apply(tf.tensor2d([[1, 1, 1, 3], [3, 1, 1, 1]]));
 * normalized instanceof tf.Tensor && (await normalized.array()); // => [[0.5, 0.5, 0.5, 1.5], [1.5, 0.5, 0.5, 0.5]]
 * norm.weights.map(({shape}) => shape); // => [[4]]
 * ```
 *
 * It is saved, loaded and registered as {@link MixtureOfExperts} is. Weight: gamma [H].
 *
 * Gradient: to the input and to gamma, of any order.
 *
 * @param args  {@link RmsNormalizationArgs}, and the arguments of every layer of tf.layers.
 *
 * @throws if an argument is unknown or does not fit, before the layer is made.
 *
 * Source: transformers `LlamaRMSNorm`.
 */
export type RmsNormalization = layers.Layer;

/** The class RmsNormalization, made for one copy of tfjs. */
export type RmsNormalizationClass = {
  new (args?: RmsNormalizationArgs | null): RmsNormalization;
  /** The members of every layer of the class. */
  readonly prototype: RmsNormalization;
  /** 'RmsNormalization', its name in saved models. */
  className: string;
  /** Makes a layer from the arguments of getConfig, in the form that a saved model has. */
  fromConfig: (typeof layers.Layer)['fromConfig'];
};

type Options = {epsilon: number};
type Parts = PartsOf<typeof weightArgParts>;

/** The class of the layer, for `tf` and its BaseLayer. */
export function makeRmsNormalization(tf: TfjsLayers, BaseLayer: BaseLayerClass): RmsNormalizationClass {
  class RmsNormalizationLayer extends BaseLayer<Options, Parts, 'gamma'> {
    static className = 'RmsNormalization';

    constructor(args?: RmsNormalizationArgs | null) {
      const given = checkOptions<RmsNormalizationArgs & {customObjects?: unknown}>(args, argNames, opName);
      checkArgsOfEveryLayer(given as RmsNormalizationArgs, opName);
      const epsilon = checkPositive(given.epsilon ?? 1e-6, 'epsilon', opName);
      const withDefaults = {...given, gammaInitializer: given.gammaInitializer ?? 'ones'};
      const weightParts = resolveWeightParts(tf, withDefaults, weightArgParts, opName);
      super(given as RmsNormalizationArgs, {opName, options: {epsilon}, weightParts});
      this.inputSpec = [{minNDim: 2}];
    }

    override build(inputShape: Shape): void {
      const hiddenSize = lastAxis(inputShape, opName);
      const {gammaInitializer: initializer, gammaRegularizer: regularizer, gammaConstraint: constraint} = this.parts;
      this.addNamedWeight({name: 'gamma', shape: [hiddenSize], initializer, regularizer, constraint});
      this.inputSpec = [{minNDim: 2, axes: {[-1]: hiddenSize}}];
      super.build(inputShape);
    }

    override forward([input]: Tensor[]): Tensor {
      return rmsNorm(cast(input, 'float32'), this.read('gamma')!, this.options.epsilon);
    }
  }
  return RmsNormalizationLayer as unknown as RmsNormalizationClass;
}
