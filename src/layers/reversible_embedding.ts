import {
  cast,
  expandDims,
  gather,
  matMul,
  notEqual,
  type Rank,
  reshape,
  Tensor,
  type Tensor2D,
  type Tensor3D,
} from '@tensorflow/tfjs-core';
import type {layers} from '@tensorflow/tfjs-layers';
import {assert, assertPositiveInteger, checkCount, checkOptions} from '../arguments/checks';
import {convertQuantizedWeights} from '../arguments/quantized_weights';
import {MoeDequantizeRows} from '../contract/kernel_names';
import type {QuantizedFormat, QuantizedWeights, ScaleFormat} from '../contract/quantized_weights';
import {runMoeKernel} from '../contract/run_kernel';
import {moeGroupedMatMul} from '../ops/moe_grouped_mat_mul';
import type {BaseLayerClass} from './base_layer';
import {hasProjectionsOf, quantizedProductsOf} from './projections';
import {checkArgsOfEveryLayer, type LayerArgs, layerArgNames} from './layer_arguments';
import {type Inputs, type Kwargs, onlyInput, onlyShape, type Shape} from './layer_calls';
import {
  assertWholeWords,
  checkWeightFormat,
  type CodesOf,
  codesSpecs,
  quantizedWeightsIn,
  type WeightFormat,
  weightFormatOf,
} from './weight_format';
import {type PartsOf, resolveWeightParts, type TfjsLayers} from './weight_parts';

type DenseArgs = Parameters<typeof layers.dense>[0];

export type EmbeddingsFormatArgs = {
  /**
   * How the embeddings are stored. Default `'float32'`. Embeddings of any other format are not trainable, and 0 until a
   * file or setWeights sets them.
   */
  embeddingsFormat?: 'float32' | QuantizedFormat | null;
  /**
   * How many elements of an embedding share a scale: a multiple of 16. A number above H gives one scale an embedding.
   * Default 32. Only for formats with scales.
   */
  embeddingsGroupSize?: number | null;
  /**
   * How scales and offsets are stored. Default `'float32'`, and `'e8m0'` for `'fp4'`. Only for formats with scales.
   */
  embeddingsScaleFormat?: ScaleFormat | null;
  /** The code that stands for 0. Default 8 for `'int4'`, 128 for `'int8'`. Only for integers without offsets. */
  embeddingsZeroPoint?: number | null;
  /** Whether groups have offsets, the values of code 0, in place of a zero point. Default false. Only for integers. */
  useEmbeddingsOffsets?: boolean | null;
};

export const embeddingsFormatNames = {
  format: 'embeddingsFormat',
  groupSize: 'embeddingsGroupSize',
  scaleFormat: 'embeddingsScaleFormat',
  zeroPoint: 'embeddingsZeroPoint',
  hasOffsets: 'useEmbeddingsOffsets',
} as const;

export type ReversibleEmbeddingArgs = LayerArgs &
  EmbeddingsFormatArgs & {
    /** V, the number of token ids. */
    vocabSize: number;
    /** H, the size of an embedding. */
    units: number;
    /** The initializer of the embeddings. Default `'randomUniform'`, as of tf.layers.embedding. */
    embeddingsInitializer?: DenseArgs['kernelInitializer'] | null;
    /** The regularizer of the embeddings. */
    embeddingsRegularizer?: DenseArgs['kernelRegularizer'] | null;
    /** The constraint of the embeddings. */
    embeddingsConstraint?: DenseArgs['kernelConstraint'] | null;
    /** The id of padding: the layer gives later layers a mask that leaves it out. Default: no mask. */
    padTokenId?: number | null;
  };

const weightArgParts = {
  embeddingsInitializer: 'kernelInitializer',
  embeddingsRegularizer: 'kernelRegularizer',
  embeddingsConstraint: 'kernelConstraint',
} as const;
const argNames = [
  'vocabSize',
  'units',
  'embeddingsInitializer',
  'embeddingsRegularizer',
  'embeddingsConstraint',
  'padTokenId',
  'embeddingsFormat',
  'embeddingsGroupSize',
  'embeddingsScaleFormat',
  'embeddingsZeroPoint',
  'useEmbeddingsOffsets',
  ...layerArgNames,
] as const;

const opName = 'reversibleEmbedding';

/**
 * Token embeddings for tf.layers that are also the head of a language model. Ids [B, S], int32 or float32, give the
 * embeddings [B, S, H]. Hidden states [..., H] of rank 3 or more give logits [..., V]: their products with the
 * embedding of each token. A model with a tied head applies one layer twice.
 *
 * ```js
 * const embedding = tf.layers.reversibleEmbedding({vocabSize: 3, units: 2});
 * embedding.build([null, null]);
 * embedding.setWeights([tf.tensor2d([[1, 0], [0, 1], [1, 1]])]);
 * const states = embedding.apply(tf.tensor2d([[2, 0]], [1, 2], 'int32'));
 * states instanceof tf.Tensor && (await states.array()); // => [[[1, 1], [1, 0]]]
 * const logits = embedding.apply(states);
 * logits instanceof tf.Tensor && (await logits.array()); // => [[[1, 1, 2], [1, 0, 1]]]
 * ```
 *
 * It is saved, loaded and registered as {@link MixtureOfExperts} is. Weight: embeddings [V, H].
 *
 * **Masks.** With `padTokenId`, ids give later layers a mask that is false where the id is padTokenId.
 *
 * **Embeddings in codes.** With an `embeddingsFormat` other than `'float32'`, embeddings become embeddings_codes,
 * embeddings_scales and embeddings_offsets: the tensors of QuantizedWeights for [1, V, H], without those that the
 * format does not have. They are not trainable, and 0 until they are set. Hidden states have a gradient as before.
 *
 * ```js
 * const embedding = tf.layers.reversibleEmbedding({vocabSize: 3, units: 4, embeddingsFormat: 'float16'});
 * embedding.build([null, null]);
 * const {codes} = tf.moeQuantizeWeights([[[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]]], {format: 'float16'});
 * embedding.setWeights([codes]);
 * const states = embedding.apply(tf.tensor2d([[2, 0]], [1, 2], 'int32'));
 * states instanceof tf.Tensor && (await states.array()); // => [[[1, 1, 0, 0], [1, 0, 0, 0]]]
 * const logits = embedding.apply(states);
 * logits instanceof tf.Tensor && (await logits.array()); // => [[[1, 1, 2], [1, 0, 1]]]
 * ```
 *
 * Ids are not checked, as that would wait for the device: an id that is not in 0..V-1 throws on cpu, and gives any
 * numbers on GPUs.
 *
 * Gradient: to the hidden states and to float32 embeddings, of the first order.
 *
 * @param args  {@link ReversibleEmbeddingArgs}, and the arguments of every layer of tf.layers.
 *
 * @throws if an argument is unknown or does not fit, before the layer is made. A call throws if its input is neither
 *     ids of rank 2 nor hidden states [..., H] of rank 3 or more.
 */
export type ReversibleEmbedding = layers.Layer;

/** The class ReversibleEmbedding, made for one copy of tfjs. */
export type ReversibleEmbeddingClass = {
  new (args: ReversibleEmbeddingArgs): ReversibleEmbedding;
  /** The members of every layer of the class. */
  readonly prototype: ReversibleEmbedding;
  /** 'ReversibleEmbedding', its name in saved models. */
  className: string;
  /** Makes a layer from the arguments of getConfig, in the form that a saved model has. */
  fromConfig: (typeof layers.Layer)['fromConfig'];
};

type Options = ReturnType<typeof checkArgs>;
type Parts = PartsOf<typeof weightArgParts>;
type EmbeddingWeight = 'embeddings' | CodesOf<'embeddings'>;

/** The class of the layer, for `tf` and its BaseLayer. */
export function makeReversibleEmbedding(tf: TfjsLayers, BaseLayer: BaseLayerClass): ReversibleEmbeddingClass {
  class ReversibleEmbeddingLayer extends BaseLayer<Options, Parts, EmbeddingWeight> {
    static className = 'ReversibleEmbedding';

    constructor(args: ReversibleEmbeddingArgs) {
      const options = checkArgs(args);
      const withDefaults = {...args, embeddingsInitializer: args.embeddingsInitializer ?? 'randomUniform'};
      const weightParts = resolveWeightParts(tf, withDefaults, weightArgParts, opName);
      // As of tf.layers.embedding, so that the layer can be the first of a sequential model.
      const hasShape = args.inputShape != null || args.batchInputShape != null;
      const withShape = hasShape ? args : {...args, batchInputShape: [args.batchSize ?? null, null]};
      super(withShape, {opName, options, weightParts});
      this.inputSpec = [{minNDim: 2}];
    }

    override build(inputShape: Shape): void {
      const {vocabSize, units} = this.options;
      const {parts} = this;
      const format = this.weightFormat();
      if (format.format === 'float32') {
        this.addNamedWeight({
          name: 'embeddings',
          shape: [vocabSize, units],
          initializer: parts.embeddingsInitializer,
          regularizer: parts.embeddingsRegularizer,
          constraint: parts.embeddingsConstraint,
        });
      } else {
        for (const spec of codesSpecs('embeddings', [1, vocabSize, units], format)) {
          this.addNamedWeight(spec);
        }
      }
      super.build(inputShape);
    }

    override apply(inputs: Inputs, kwargs?: Kwargs): ReturnType<layers.Layer['apply']> {
      const outputs = super.apply(inputs, kwargs);
      const [input] = [inputs].flat();
      // A model disposes of a layer once, and tf.layers counts its uses: a tied head is not one more.
      const counted = this as unknown as {_refCount: number};
      if (!(input instanceof Tensor) && !areIds(input.shape) && counted._refCount > 1) {
        counted._refCount--;
      }
      return outputs;
    }

    /** One layer has inputs of two ranks. */
    override warnOnIncompatibleInputShape(): void {}

    override computeOutputShape(inputShape: Shape): Shape {
      const shape = onlyShape(inputShape);
      this.assertShape(shape);
      const {vocabSize, units} = this.options;
      return areIds(shape) ? [...shape, units] : [...shape.slice(0, -1), vocabSize];
    }

    override computeMask(inputs: Tensor | Tensor[], mask?: Tensor | Tensor[]): Tensor {
      const input = onlyInput(inputs);
      const {padTokenId} = this.options;
      // Type: tf.layers says a tensor, and takes none as well.
      const given = (Array.isArray(mask) ? mask[0] : (mask ?? null)) as Tensor;
      return padTokenId != null && areIds(input.shape) ? notEqual(input, padTokenId) : given;
    }

    override forward([input]: Tensor[]): Tensor {
      this.assertShape(input.shape);
      const {vocabSize, units} = this.options;
      if (areIds(input.shape)) {
        return this.embeddingsOf(cast(input, 'int32'));
      }
      const states = reshape<Rank.R2>(cast(input, 'float32'), [input.size / units, units]);
      return reshape(this.logitsOf(states), [...input.shape.slice(0, -1), vocabSize]);
    }

    private weightFormat(): WeightFormat {
      return weightFormatOf(this.options, embeddingsFormatNames);
    }

    /** Undefined for float32. */
    private codes(): QuantizedWeights | undefined {
      const format = this.weightFormat();
      return format.format === 'float32'
        ? undefined
        : quantizedWeightsIn('embeddings', format, (name) => this.read(name));
    }

    private embeddingsOf(ids: Tensor): Tensor {
      const codes = this.codes();
      if (codes == null) {
        return gather(this.read('embeddings')!, ids);
      }
      const {encoding, parts} = convertQuantizedWeights(codes, 'embeddings', 'outIn', opName);
      const rows = reshape<Rank.R1>(ids, [ids.size]);
      const {out} = runMoeKernel(MoeDequantizeRows, {...parts[0], rows}, {encoding});
      return reshape(out, [...ids.shape, this.options.units]);
    }

    private logitsOf(states: Tensor2D): Tensor2D {
      const codes = this.codes();
      return codes == null
        ? logitsOf(states, this.read<Tensor2D>('embeddings')!)
        : quantizedProductsOf(states, codes, undefined, [this.options.vocabSize], opName)[0];
    }

    private assertShape(shape: Array<number | null>): void {
      const {units} = this.options;
      const last = shape[shape.length - 1];
      assert(
        areIds(shape) || (shape.length > 2 && last === units),
        opName,
        () =>
          `the input of layer '${this.name}' must be ids of rank 2 or hidden states [..., ${units}] of rank 3 or more, ` +
          `but is ${JSON.stringify(shape)}.`,
      );
    }
  }
  return ReversibleEmbeddingLayer as unknown as ReversibleEmbeddingClass;
}

/** The products of states [R, H] with embeddings [V, H]. tfjs's product of few rows is slow on webgpu. */
function logitsOf(states: Tensor2D, embeddings: Tensor2D): Tensor2D {
  const [numRows] = states.shape;
  if (!hasProjectionsOf(numRows)) {
    return matMul(states, embeddings, false, true);
  }
  return moeGroupedMatMul(states, expandDims<Tensor3D>(embeddings), [0, numRows]);
}

const areIds = (shape: Array<number | null>): boolean => shape.length === 2;

function checkArgs(args: ReversibleEmbeddingArgs) {
  type Known = ReversibleEmbeddingArgs & {customObjects?: unknown};
  assert(args != null, opName, () => 'args must have vocabSize and units, but are not given.');
  const given = checkOptions<Known>(args, argNames, opName) as ReversibleEmbeddingArgs;
  const {vocabSize, units} = given;
  assertPositiveInteger(vocabSize, 'vocabSize', opName);
  assertPositiveInteger(units, 'units', opName);
  const padTokenId = given.padTokenId == null ? null : checkCount(given.padTokenId, 'padTokenId', opName);
  assert(
    padTokenId == null || padTokenId < vocabSize,
    opName,
    () => `padTokenId must be less than vocabSize (${vocabSize}), but is ${padTokenId}.`,
  );
  checkArgsOfEveryLayer(given, opName);
  const format = checkWeightFormat(given, embeddingsFormatNames, opName);
  assertWholeWords(units, format.embeddingsFormat, 'units', opName);
  return {vocabSize, units, padTokenId, ...format};
}
