import {
  cast,
  expandDims,
  keep,
  mul,
  ones,
  type Rank,
  reshape,
  Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor3D,
  type Tensor4D,
  tidy,
  where,
  zeros,
  zerosLike,
} from '@tensorflow/tfjs-core';
import type {layers} from '@tensorflow/tfjs-layers';
import {assert, assertPositiveInteger, assertRank, describeValue} from '../arguments/checks';
import {MoeCachedAttention, MoeRotateIntoCache} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import type {BaseLayerClass} from './base_layer';
import {attention, swapHeadsAndPositions, type Visibility} from './attention';
import {
  assertWholeKernels,
  type CausalSelfAttentionArgs,
  checkArgs,
  headDimOf,
  projectionFormatNames,
  weightArgParts,
} from './causal_self_attention_options';
import {runsWithoutGradient} from './decoding_kernels';
import {KeyValueCache} from './key_value_cache';
import {fittingMask, type Kwargs, lastAxis, type Shape} from './layer_calls';
import {projections, quantizedProjections} from './projections';
import {rmsNorm} from './rms_norm';
import {rotate, rotaryTable, type RotaryTable, type Rotation, rowsOfTable} from './rotary_embedding';
import {type CodesOf, codesSpecs, quantizedWeightsIn, type WeightFormat, weightFormatOf} from './weight_format';
import {type Initializer, type PartsOf, resolveWeightParts, type TfjsLayers} from './weight_parts';

const opName = 'causalSelfAttention';

/** A workgroup of MoeCachedAttention has so many threads, one or more for each element of a head. */
const MAX_HEAD_DIM_OF_KERNEL = 256;

/**
 * Causal self-attention for tf.layers: each position attends to itself and to positions before it. Heads of queries
 * may share heads of keys and values, and queries and keys have a rotary position embedding. The input is [B, S, H],
 * and the output has the same shape.
 *
 * ```js
 * const attention = tf.layers.causalSelfAttention({numHeads: 4, numKeyValueHeads: 2, inputShape: [null, 8]});
 * const model = tf.sequential({layers: [attention]});
 * const x = tf.tensor3d([[[1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1]]]);
 * const [output] = [model.predict(x)].flat();
 * output.shape; // => [1, 2, 8]
 * attention.weights.map(({shape}) => shape); // => [[8, 8], [8, 4], [8, 4], [8, 8]]
 *
 * // One position after the other, with the keys and values of those before it:
 * const cache = attention.makeCache(1, 10);
 * const steps = tf.split(x, 2, 1).map((position) => attention.attend(position, cache));
 * (await tf.max(tf.abs(tf.sub(tf.concat(steps, 1), output))).data())[0] < 1e-3; // => true
 * cache.length; // => 2
 * cache.dispose();
 * ```
 *
 * It is saved, loaded and registered as {@link MixtureOfExperts} is.
 *
 * **Positions** are 0..S-1 in a call. In a rotary embedding, element i of a head turns with element i + D/2.
 *
 * **Masks.** A position that the mask of an Embedding (maskZero), Masking or reversibleEmbedding layer leaves out is
 * seen by no other position, and its contents go nowhere. Its output is some finite number. The layer ignores a mask
 * whose shape is not [B, S].
 *
 * **Decoding.** `attend` computes what a call would for the next positions alone, with a cache of the positions before
 * them. It has no gradient.
 *
 * **Weights**, in the order of `layer.weights` and with their names in saved files: query_kernel [H, N*D], query_bias
 * [N*D], query_norm, key_kernel [H, M*D], key_bias [M*D], key_norm, value_kernel [H, M*D], value_bias [M*D],
 * output_kernel [N*D, H], output_bias [H], and sinks [N]. The norms are [D] with `queryKeyNormalization: 'head'`, and
 * [N*D] and [M*D] with `'all'`. A weight is absent if no argument asks for it.
 *
 * **Kernels in codes.** With a `projectionFormat` other than `'float32'`, query_kernel, key_kernel and value_kernel
 * become query_key_value_codes, query_key_value_scales and query_key_value_offsets: the tensors of QuantizedWeights for
 * [1, (N+2M)*D, H], rows of queries first, then of keys, then of values. output_kernel becomes output_codes,
 * output_scales and output_offsets, for [1, H, N*D]. Tensors that the format does not have are absent. They are not
 * trainable, so they come after all other weights, and they are 0 until they are set. All else is as before: biases,
 * norms and sinks are float32 and train, and the input has a gradient.
 *
 * ```js
 * const attention = tf.layers.causalSelfAttention({numHeads: 2, projectionFormat: 'int8', inputShape: [null, 8]});
 * const model = tf.sequential({layers: [attention]});
 * // Rows of queries, keys and values, and of the output
 * const weights = [tf.randomNormal([1, 24, 8]), tf.randomNormal([1, 8, 8])].flatMap((rows) => {
 *   const {codes, scales} = tf.moeQuantizeWeights(rows, {format: 'int8'});
 *   return scales == null ? [codes] : [codes, scales];
 * });
 * model.setWeights(weights);
 * attention.weights.map(({shape}) => shape); // => [[1, 24, 2], [1, 24, 1], [1, 8, 2], [1, 8, 1]]
 * ```
 *
 * Gradient: to the input and every trainable weight, of the first order.
 *
 * @param args  {@link CausalSelfAttentionArgs}, and the arguments of every layer of tf.layers.
 *
 * @throws if an argument is unknown or does not fit, before the layer is made. `attend` throws if x or the cache does
 *     not fit, or if the cache is full, before any work.
 *
 * Source: transformers' attention of Llama, Qwen3-MoE, OLMoE and gpt-oss.
 */
export interface CausalSelfAttention extends layers.Layer {
  /** An empty cache for `batchSize` sequences of up to `capacity` positions. The layer must be built. */
  makeCache(batchSize: number, capacity: number): KeyValueCache;
  /**
   * The output [B, T, H] for x [B, T, H], the T positions that come after those in the cache. Their keys and values are
   * added to the cache. `mask`, [B, T] of 0 or false for padding, holds for these positions from now on.
   */
  attend(x: Tensor, cache: KeyValueCache, mask?: Tensor | null): Tensor3D;
}

/** The class CausalSelfAttention, made for one copy of tfjs. */
export type CausalSelfAttentionClass = {
  new (args: CausalSelfAttentionArgs): CausalSelfAttention;
  /** The members of every layer of the class. */
  readonly prototype: CausalSelfAttention;
  /** 'CausalSelfAttention', its name in saved models. */
  className: string;
  /** Makes a layer from the arguments of getConfig, in the form that a saved model has. */
  fromConfig: (typeof layers.Layer)['fromConfig'];
};

type Projection = 'query' | 'key' | 'value' | 'output';
type AttentionWeight = `${Projection}_${'kernel' | 'bias' | 'norm'}` | CodesOf<'query_key_value' | 'output'> | 'sinks';

type Options = ReturnType<typeof checkArgs>;
type Parts = PartsOf<typeof weightArgParts>;

/** The class of the layer, for `tf` and its BaseLayer. */
export function makeCausalSelfAttention(tf: TfjsLayers, BaseLayer: BaseLayerClass): CausalSelfAttentionClass {
  class CausalSelfAttentionLayer extends BaseLayer<Options, Parts, AttentionWeight> {
    static className = 'CausalSelfAttention';
    private hiddenSize = 0;
    private headDim = 0;
    /** The angles of the last call's positions. */
    private rotaryTable: RotaryTable | undefined;

    constructor(args: CausalSelfAttentionArgs) {
      const options = checkArgs(args, opName);
      const weightParts = resolveWeightParts(tf, args, weightArgParts, opName);
      super(args, {opName, options, weightParts});
      this.inputSpec = [{ndim: 3}];
    }

    override build(inputShape: Shape): void {
      this.hiddenSize = lastAxis(inputShape, opName);
      this.headDim = headDimOf(this.options, this.hiddenSize, opName);
      const {numHeads, numKeyValueHeads, useBias, useOutputBias, useSinks} = this.options;
      const [querySize, keySize] = [numHeads * this.headDim, numKeyValueHeads * this.headDim];
      assertWholeKernels(this.options, this.hiddenSize, querySize, opName);
      this.addProjection('query', this.hiddenSize, querySize, useBias);
      this.addProjection('key', this.hiddenSize, keySize, useBias);
      this.addProjection('value', this.hiddenSize, keySize, useBias);
      this.addProjection('output', querySize, this.hiddenSize, useOutputBias);
      if (useSinks) {
        this.addNamedWeight({name: 'sinks', shape: [numHeads], initializer: this.parts.biasInitializer});
      }
      this.addCodes('query_key_value', [1, querySize + 2 * keySize, this.hiddenSize]);
      this.addCodes('output', [1, this.hiddenSize, querySize]);
      this.whenDisposed(() => this.disposeTable());
      this.inputSpec = [{ndim: 3, axes: {[-1]: this.hiddenSize}}];
      super.build(inputShape);
    }

    override forward([given]: Tensor[], kwargs: Kwargs): Tensor {
      const input = cast(given, 'float32') as Tensor3D;
      const [batchSize, numPositions] = input.shape;
      if (input.size === 0) {
        return zeros(input.shape);
      }
      const mask = fittingMask(kwargs?.mask, [batchSize, numPositions]) as Tensor2D | undefined;
      const {queries, keys, values} = this.project(input, this.tableOf(numPositions), mask);
      return this.attendTo(queries, keys, values, {firstQuery: 0, keyMask: mask && cast(mask, 'float32')});
    }

    makeCache(batchSize: number, capacity: number): KeyValueCache {
      assertPositiveInteger(batchSize, 'batchSize', opName);
      assertPositiveInteger(capacity, 'capacity', opName);
      this.assertBuilt('makeCache');
      return new KeyValueCache(batchSize, this.options.numKeyValueHeads, capacity, this.rotation());
    }

    attend(x: Tensor, cache: KeyValueCache, mask?: Tensor | null): Tensor3D {
      this.assertBuilt('attend');
      this.assertFits(x, cache, mask);
      return tidy(() => {
        const input = cast(x, 'float32') as Tensor3D;
        const newMask = mask == null ? undefined : (cast(mask, 'float32') as Tensor2D);
        if (runsWithoutGradient(MoeCachedAttention) && this.headDim <= MAX_HEAD_DIM_OF_KERNEL) {
          return this.attendByKernels(input, cache, newMask);
        }
        const firstQuery = cache.length;
        const table = rowsOfTable(cache.rotaryTable(), firstQuery, input.shape[1]);
        const {queries, keys, values} = this.project(input, table, newMask);
        cache.add(keys, values, newMask);
        return this.attendTo(queries, cache.keys, cache.values, {firstQuery, keyMask: cache.keyMask});
      });
    }

    private addProjection(name: Projection, numIn: number, numOut: number, hasBias: boolean): void {
      const {parts} = this;
      if (this.weightFormat().format === 'float32') {
        this.addNamedWeight({
          name: `${name}_kernel`,
          shape: [numIn, numOut],
          initializer: parts.kernelInitializer,
          regularizer: parts.kernelRegularizer,
          constraint: parts.kernelConstraint,
        });
      }
      if (hasBias) {
        this.addNamedWeight({
          name: `${name}_bias`,
          shape: [numOut],
          initializer: parts.biasInitializer,
          regularizer: parts.biasRegularizer,
          constraint: parts.biasConstraint,
        });
      }
      const {queryKeyNormalization} = this.options;
      if (queryKeyNormalization != null && (name === 'query' || name === 'key')) {
        const size = queryKeyNormalization === 'head' ? this.headDim : numOut;
        this.addNamedWeight({name: `${name}_norm`, shape: [size], initializer: onesInitializer});
      }
    }

    private weightFormat(): WeightFormat {
      return weightFormatOf(this.options, projectionFormatNames);
    }

    /** The codes that stand for kernels [1, out, in]. */
    private addCodes(name: 'query_key_value' | 'output', shape: number[]): void {
      const format = this.weightFormat();
      if (format.format !== 'float32') {
        for (const spec of codesSpecs(name, shape, format)) {
          this.addNamedWeight(spec);
        }
      }
    }

    private rotation(): Rotation {
      const {rotaryBase, rotaryScaling} = this.options;
      return {headDim: this.headDim, rotaryBase, rotaryScaling};
    }

    private tableOf(numPositions: number): RotaryTable {
      if (this.rotaryTable?.cos.shape[0] !== numPositions) {
        this.disposeTable();
        const {cos, sin} = rotaryTable(numPositions, this.rotation());
        this.rotaryTable = {cos: keep(cos), sin: keep(sin)};
      }
      return this.rotaryTable!;
    }

    private disposeTable(): void {
      this.rotaryTable?.cos.dispose();
      this.rotaryTable?.sin.dispose();
      this.rotaryTable = undefined;
    }

    /** The cache stays where it is, and a step takes 4 launches where nothing is normalized. */
    private attendByKernels(x: Tensor3D, cache: KeyValueCache, mask: Tensor2D | undefined): Tensor3D {
      const {slidingWindow} = this.options;
      const {angles, position} = cache.forKernels();
      const {keys: cachedKeys, values: cachedValues} = cache;
      const inputs = {...this.projected(x, mask), angles, position, cachedKeys, cachedValues};
      const {rotated: queries} = runMoeKernel(MoeRotateIntoCache, inputs, {scale: this.scale()});
      cache.addPositions(x.shape[1], mask);
      const sinks = this.read('sinks');
      const {out} = runMoeKernel(
        MoeCachedAttention,
        {queries, cachedKeys, cachedValues, position, sinks, keyMask: cache.keyMask},
        {slidingWindow},
      );
      return this.outputOf(out);
    }

    private scale(): number {
      return this.options.scale ?? this.headDim ** -0.5;
    }

    /** Scaled queries [B, N, S, D], and keys and values [B, M, S, D], of x [B, S, H]. */
    private project(x: Tensor3D, table: RotaryTable, mask: Tensor2D | undefined) {
      const {queries, keys, values} = this.projected(x, mask);
      return {
        queries: swapHeadsAndPositions(mul(rotate(this.headsOf(queries), table), this.scale())),
        keys: swapHeadsAndPositions(rotate(this.headsOf(keys), table)),
        values: swapHeadsAndPositions(this.headsOf(values)),
      };
    }

    /** Queries [B, S, N*D], and keys and values [B, S, M*D], normalized if the layer normalizes them. */
    private projected(x: Tensor3D, mask: Tensor2D | undefined) {
      // The contents of padding must go nowhere, and a share of 0 does not keep NaN away.
      const seen = mask == null ? x : where(expandDims(cast(mask, 'bool'), 2), x, zerosLike(x));
      const [queries, keys, values] = this.projections(seen, 'query_key_value', ['query', 'key', 'value']);
      return {queries: this.normalized('query', queries), keys: this.normalized('key', keys), values};
    }

    /** `ofCodes` is the name of the kernels if they are in codes. */
    private projections(x: Tensor3D, ofCodes: 'query_key_value' | 'output', names: Projection[]): Tensor3D[] {
      const format = this.weightFormat();
      const biasOf = (name: Projection) => this.read<Tensor1D>(`${name}_bias`);
      if (format.format === 'float32') {
        const kernelOf = (name: Projection) => this.read<Tensor2D>(`${name}_kernel`)!;
        return projections(
          x,
          names.map((name) => ({kernel: kernelOf(name), bias: biasOf(name)})),
        );
      }
      const weights = quantizedWeightsIn(ofCodes, format, (name) => this.read(name));
      const given = names.map((name) => ({numOut: this.numOutOf(name), bias: biasOf(name)}));
      return quantizedProjections(x, weights, given, opName);
    }

    private numOutOf(name: Projection): number {
      const {numHeads, numKeyValueHeads} = this.options;
      return name === 'output' ? this.hiddenSize : (name === 'query' ? numHeads : numKeyValueHeads) * this.headDim;
    }

    private normalized(name: 'query' | 'key', x: Tensor3D): Tensor3D {
      const {queryKeyNormalization, normalizationEpsilon} = this.options;
      const gamma = this.read(`${name}_norm`);
      if (gamma == null) {
        return x;
      }
      return queryKeyNormalization === 'all'
        ? rmsNorm(x, gamma, normalizationEpsilon)
        : reshape(rmsNorm(this.headsOf(x), gamma, normalizationEpsilon), x.shape);
    }

    /** [B, S, N*D] as [B, S, N, D]. */
    private headsOf(x: Tensor3D): Tensor4D {
      const [batchSize, numPositions, size] = x.shape;
      return reshape<Rank.R4>(x, [batchSize, numPositions, size / this.headDim, this.headDim]);
    }

    private attendTo(
      queries: Tensor4D,
      keys: Tensor4D,
      values: Tensor4D,
      visibility: Omit<Visibility, 'slidingWindow'>,
    ): Tensor3D {
      const {slidingWindow} = this.options;
      const sums = attention(queries, keys, values, {...visibility, slidingWindow}, this.read<Tensor1D>('sinks'));
      return this.outputOf(sums);
    }

    private outputOf(sums: Tensor3D): Tensor3D {
      return this.projections(sums, 'output', ['output'])[0];
    }

    private assertBuilt(method: string): void {
      assert(
        this.weights.length > 0,
        opName,
        () => `${method}() needs weights, but layer '${this.name}' is not built. Call it, or its model, once first.`,
      );
    }

    private assertFits(x: Tensor, cache: KeyValueCache, mask: Tensor | null | undefined): void {
      assert(x instanceof Tensor, opName, () => `x must be a tensor, but is ${describeValue(x)}.`);
      assertRank(x, 'x', opName, '[B, T, H]');
      const [batchSize, numNew, hiddenSize] = x.shape;
      assert(
        numNew >= 1 && hiddenSize === this.hiddenSize,
        opName,
        () => `x must be [B, T, ${this.hiddenSize}] with T of at least 1, but is [${x.shape}].`,
      );
      assert(
        cache instanceof KeyValueCache,
        opName,
        () => `cache must be a result of makeCache(), but is ${describeValue(cache)}.`,
      );
      assert(!cache.isDisposed, opName, () => 'cache is disposed.');
      const wanted = [batchSize, this.options.numKeyValueHeads, cache.capacity, this.headDim];
      assert(
        cache.keys.shape.every((size, axis) => size === wanted[axis]),
        opName,
        () => `cache must be [${wanted}] for layer '${this.name}' and this x, but is [${cache.keys.shape}].`,
      );
      assert(
        cache.length + numNew <= cache.capacity,
        opName,
        () =>
          `cache must have room for ${numNew} more positions, but has ${cache.capacity - cache.length} of ` +
          `${cache.capacity} left.`,
      );
      assert(
        mask == null || (mask instanceof Tensor && fittingMask(mask, [batchSize, numNew]) != null),
        opName,
        () => `mask must be a tensor [${batchSize}, ${numNew}], but is ${describeValue(mask)}.`,
      );
    }
  }
  return CausalSelfAttentionLayer as unknown as CausalSelfAttentionClass;
}

const onesInitializer: Pick<Initializer, 'apply'> = {apply: (shape) => ones(shape)};
