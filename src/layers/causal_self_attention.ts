import {
  cast,
  expandDims,
  keep,
  mul,
  ones,
  type Rank,
  reshape,
  type serialization,
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
import type {layers, LayerVariable} from '@tensorflow/tfjs-layers';
import {assert, assertPositiveInteger, assertRank, describeValue} from '../arguments/checks';
import {MoeCachedAttention, MoeRotateIntoCache} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {attention, swapHeadsAndPositions, type Visibility} from './attention';
import {type CausalSelfAttentionArgs, checkArgs, headDimOf, weightArgParts} from './causal_self_attention_options';
import {runsWithoutGradient} from './decoding_kernels';
import {KeyValueCache} from './key_value_cache';
import {
  assertInputs,
  fittingMask,
  type Inputs,
  type Kwargs,
  lastAxis,
  onlyInput,
  onlyShape,
  type Shape,
} from './layer_calls';
import {projections} from './projections';
import {rmsNorm} from './rms_norm';
import {rotate, rotaryTable, type RotaryTable, type Rotation, rowsOfTable} from './rotary_embedding';
import {type Constraint, type Initializer, resolveWeightParts, type TfjsLayers} from './weight_parts';

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
 * Gradient: to the input and every weight, of the first order.
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
type AttentionWeight = `${Projection}_${'kernel' | 'bias' | 'norm'}` | 'sinks';

/** The class of the layer, built on the Layer class of `tf`. */
export function makeCausalSelfAttention(tf: TfjsLayers): CausalSelfAttentionClass {
  class CausalSelfAttentionLayer extends tf.layers.Layer {
    static className = 'CausalSelfAttention';
    private readonly options;
    private readonly weightParts;
    private readonly variables: Partial<Record<AttentionWeight, LayerVariable>> = {};
    private hiddenSize = 0;
    private headDim = 0;
    /** The angles of the last call's positions. */
    private rotaryTable: RotaryTable | undefined;

    constructor(args: CausalSelfAttentionArgs) {
      const options = checkArgs(args, opName);
      const weightParts = resolveWeightParts(tf, args, weightArgParts, opName);
      super(args);
      this.options = options;
      this.weightParts = weightParts;
      this.supportsMasking = true;
      this.inputSpec = [{ndim: 3}];
    }

    override build(inputShape: Shape): void {
      this.hiddenSize = lastAxis(inputShape, opName);
      this.headDim = headDimOf(this.options, this.hiddenSize, opName);
      const {numHeads, numKeyValueHeads, useBias, useOutputBias, useSinks} = this.options;
      const [querySize, keySize] = [numHeads * this.headDim, numKeyValueHeads * this.headDim];
      this.addProjection('query', this.hiddenSize, querySize, useBias);
      this.addProjection('key', this.hiddenSize, keySize, useBias);
      this.addProjection('value', this.hiddenSize, keySize, useBias);
      this.addProjection('output', querySize, this.hiddenSize, useOutputBias);
      if (useSinks) {
        this.add('sinks', [numHeads], this.weightParts.parts.biasInitializer);
      }
      this.disposeTableWith(this.variables.query_kernel!);
      this.inputSpec = [{ndim: 3, axes: {[-1]: this.hiddenSize}}];
      super.build(inputShape);
    }

    override apply(inputs: Inputs, kwargs?: Kwargs): ReturnType<layers.Layer['apply']> {
      assertInputs(this, inputs, tf, opName);
      return super.apply(inputs, kwargs);
    }

    override computeOutputShape(inputShape: Shape): Shape {
      return onlyShape(inputShape);
    }

    override call(inputs: Tensor | Tensor[], kwargs: Kwargs): Tensor {
      return tidy(() => {
        this.invokeCallHook(inputs, kwargs);
        const input = cast(onlyInput(inputs), 'float32') as Tensor3D;
        const [batchSize, numPositions] = input.shape;
        if (input.size === 0) {
          return zeros(input.shape);
        }
        const mask = fittingMask(kwargs?.mask, [batchSize, numPositions]) as Tensor2D | undefined;
        const {queries, keys, values} = this.project(input, this.tableOf(numPositions), mask);
        return this.attendTo(queries, keys, values, {firstQuery: 0, keyMask: mask && cast(mask, 'float32')});
      });
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

    override getConfig(): serialization.ConfigDict {
      return {...super.getConfig(), ...this.options, ...this.weightParts.getConfig()} as serialization.ConfigDict;
    }

    private addProjection(name: Projection, numIn: number, numOut: number, hasBias: boolean): void {
      const {parts} = this.weightParts;
      const {kernelInitializer, kernelRegularizer, kernelConstraint} = parts;
      this.add(`${name}_kernel`, [numIn, numOut], kernelInitializer, kernelRegularizer, kernelConstraint);
      if (hasBias) {
        this.add(`${name}_bias`, [numOut], parts.biasInitializer, parts.biasRegularizer, parts.biasConstraint);
      }
      const {queryKeyNormalization} = this.options;
      if (queryKeyNormalization != null && (name === 'query' || name === 'key')) {
        const size = queryKeyNormalization === 'head' ? this.headDim : numOut;
        this.add(`${name}_norm`, [size], onesInitializer);
      }
    }

    private add(
      name: AttentionWeight,
      shape: number[],
      initializer: Pick<Initializer, 'apply'>,
      regularizer?: object | null,
      constraint?: Constraint | null,
    ): void {
      // tf.layers asks for objects of its own classes, but calls only their method `apply`.
      this.variables[name] = this.addWeight(
        name,
        shape,
        'float32',
        initializer as never,
        (regularizer ?? undefined) as never,
        true,
        (constraint ?? undefined) as never,
      );
    }

    private read<T extends Tensor>(name: AttentionWeight): T | undefined {
      return this.variables[name]?.read() as T | undefined;
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

    /** A layer around this one disposes of the weights alone, and calls nothing of this layer. */
    private disposeTableWith(variable: LayerVariable): void {
      const dispose = variable.dispose.bind(variable);
      variable.dispose = () => {
        this.disposeTable();
        dispose();
      };
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
      const [queries, keys, values] = this.projections(seen, 'query', 'key', 'value');
      return {queries: this.normalized('query', queries), keys: this.normalized('key', keys), values};
    }

    private projections(x: Tensor3D, ...names: Projection[]): Tensor3D[] {
      const weights = names.map((name) => ({
        kernel: this.read<Tensor2D>(`${name}_kernel`)!,
        bias: this.read<Tensor1D>(`${name}_bias`),
      }));
      return projections(x, weights);
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
      return this.projections(sums, 'output')[0];
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
