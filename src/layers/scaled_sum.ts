import {addN, cast, mul, reshape, type serialization, type Tensor, util} from '@tensorflow/tfjs-core';
import type {layers} from '@tensorflow/tfjs-layers';
import {assert, checkOptions, describeValue} from '../arguments/checks';
import {MoeScaledSum} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import type {BaseLayerClass} from './base_layer';
import {runsWithoutGradient} from './decoding_kernels';
import {checkArgsOfEveryLayer, type LayerArgs, layerArgNames} from './layer_arguments';
import type {Shape} from './layer_calls';

export type ScaledSumArgs = LayerArgs & {
  /** The factor of each input. */
  factors: number[];
};

const argNames = ['factors', ...layerArgNames] as const;

const opName = 'scaledSum';

/**
 * A sum of inputs of one shape for tf.layers, each times a factor: the residual connections of language models. One
 * input is scaled.
 *
 * ```js
 * const residual = tf.layers.scaledSum({factors: [1, 0.5]});
 * const sum = residual.apply([tf.tensor2d([[1, 2]]), tf.tensor2d([[4, 8]])]);
 * sum instanceof tf.Tensor && await sum.array(); // => [[3, 6]]
 * ```
 *
 * It is saved, loaded and registered as {@link MixtureOfExperts} is. It has no weights.
 *
 * **Masks.** The mask of the first input is that of the output. tf.layers.add gives no mask [B, S] on, and
 * tf.layers.rescaling takes none.
 *
 * @param args  {@link ScaledSumArgs}, and the arguments of every layer of tf.layers.
 *
 * @throws if an argument is unknown or does not fit, before the layer is made. A call throws if its inputs are not as
 *     many as the factors, or differ in shape.
 */
export type ScaledSum = layers.Layer;

/** The class ScaledSum, made for one copy of tfjs. */
export type ScaledSumClass = {
  new (args: ScaledSumArgs): ScaledSum;
  /** The members of every layer of the class. */
  readonly prototype: ScaledSum;
  /** 'ScaledSum', its name in saved models. */
  className: string;
  /** Makes a layer from the arguments of getConfig, in the form that a saved model has. */
  fromConfig: (typeof layers.Layer)['fromConfig'];
};

type Options = {factors: number[]};

/** The class of the layer, on the BaseLayer of a copy of tfjs. */
export function makeScaledSum(BaseLayer: BaseLayerClass): ScaledSumClass {
  class ScaledSumLayer extends BaseLayer<Options, undefined, never> {
    static className = 'ScaledSum';

    constructor(args: ScaledSumArgs) {
      super(args, {opName, options: {factors: checkArgs(args)}});
    }

    override computeOutputShape(inputShape: Shape): Shape {
      const shapes = (Array.isArray(inputShape[0]) ? inputShape : [inputShape]) as Array<Array<number | null>>;
      this.assertFits(shapes);
      return shapes[0];
    }

    override computeMask(_: Tensor | Tensor[], mask?: Tensor | Tensor[]): Tensor {
      // Type: tf.layers says a tensor, and takes none as well.
      return (Array.isArray(mask) ? mask[0] : (mask ?? null)) as Tensor;
    }

    override forward(inputs: Tensor[]): Tensor {
      const {factors} = this.options;
      this.assertFits(inputs.map(({shape}) => shape));
      const terms = inputs.map((input) => cast(input, 'float32'));
      return terms.length === 2 && runsWithoutGradient(MoeScaledSum) ? sumOfTwo(terms, factors) : sumOf(terms, factors);
    }

    override getConfig(): serialization.ConfigDict {
      // A copy, because callers may change it.
      return {...super.getConfig(), factors: [...this.options.factors]};
    }

    private assertFits(shapes: Array<Array<number | null>>): void {
      const {factors} = this.options;
      const isKnown = (shape: Array<number | null>) => shape.every((size) => size != null);
      const fits = shapes.every(
        (shape) => !isKnown(shape) || !isKnown(shapes[0]) || util.arraysEqual(shape, shapes[0]),
      );
      assert(
        shapes.length === factors.length && fits,
        opName,
        () =>
          `layer '${this.name}' must have ${factors.length} inputs of one shape, one for each factor, but has ` +
          `${JSON.stringify(shapes)}.`,
      );
    }
  }
  return ScaledSumLayer as unknown as ScaledSumClass;
}

function sumOf(terms: Tensor[], factors: number[]): Tensor {
  const scaled = terms.map((term, i) => (factors[i] === 1 ? term : mul(term, factors[i])));
  return scaled.length === 1 ? scaled[0] : addN(scaled);
}

function sumOfTwo(terms: Tensor[], [factorA, factorB]: number[]): Tensor {
  const [a, b] = terms.map((term) => reshape(term, [term.size]));
  return reshape(runMoeKernel(MoeScaledSum, {a, b}, {factorA, factorB}).out, terms[0].shape);
}

function checkArgs(args: ScaledSumArgs): number[] {
  type Known = ScaledSumArgs & {customObjects?: unknown};
  assert(args != null, opName, () => 'args must have factors, but are not given.');
  const given = checkOptions<Known>(args, argNames, opName) as ScaledSumArgs;
  const {factors} = given;
  assert(
    Array.isArray(factors) && factors.length > 0 && factors.every((factor) => Number.isFinite(Math.fround(factor))),
    opName,
    () => `factors must be an array of at least one number that fits float32, but is ${describeValue(factors)}.`,
  );
  checkArgsOfEveryLayer(given, opName);
  return [...factors];
}
