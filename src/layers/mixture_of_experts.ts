import {
  add,
  cast,
  concat,
  expandDims,
  fill,
  mul,
  randomUniform,
  type Rank,
  reshape,
  scalar,
  type Scalar,
  slice,
  type Tensor,
  type Tensor1D,
  tensor1d,
  type Tensor2D,
  type Tensor3D,
  tidy,
  where,
  zeros,
  zerosLike,
} from '@tensorflow/tfjs-core';
import type {layers} from '@tensorflow/tfjs-layers';
import {fusedExperts} from '../ops/fused_experts';
import {moeGroupedMatMul} from '../ops/moe_grouped_mat_mul';
import {moeLoadBalancingLoss} from '../ops/moe_load_balancing_loss';
import {moeRouterZLoss} from '../ops/moe_router_z_loss';
import {moeTopk} from '../ops/moe_topk';
import {AuxiliaryLosses} from './auxiliary_losses';
import type {BaseLayerClass} from './base_layer';
import {type Batch, Batches} from './batches';
import {dropOverCapacity, expertCapacity} from './expert_capacity';
import {BatchLoad, droppedShareOf, entropyOf} from './expert_load';
import {expertCounts} from '../ops/expert_counts';
import {weightSpecs} from './expert_weights';
import type {LayerWeightName} from '../contract/block_weights';
import type {QuantizedWeights} from '../contract/quantized_weights';
import {expertFormatNames} from './expert_format';
import {fittingMask, type Kwargs, lastAxis, type Mask, type Shape} from './layer_calls';
import {
  checkArgs,
  type MixtureOfExpertsArgs,
  type MixtureOfExpertsOptions,
  weightArgParts,
} from './mixture_of_experts_options';
import {ScoreCorrection} from './score_correction';
import {seedOf} from './seeds';
import {assertWholeWords, quantizedWeightsIn, weightFormatOf} from './weight_format';
import {type PartsOf, resolveWeightParts, type TfjsLayers} from './weight_parts';

const opName = 'mixtureOfExperts';

/**
 * A mixture-of-experts layer for tf.layers. A router sends each token to its `topk` best experts, and their outputs are
 * multiplied by the router's weights and added. The layer takes the place of the dense layers of a transformer's
 * feed-forward block. The input is [..., H] of rank 2 or more, and the output has the same shape.
 *
 * ```js
 * const experts = tf.layers.mixtureOfExperts({numExperts: 4, intermediateSize: 8, topk: 2, inputShape: [3, 6]});
 * const model = tf.sequential({layers: [experts, tf.layers.globalAveragePooling1d({})]});
 * model.compile({optimizer: 'sgd', loss: 'meanSquaredError'});
 * await model.fit(tf.ones([5, 3, 6]), tf.ones([5, 6]), {epochs: 2, verbose: 0});
 * const output = model.predict(tf.ones([5, 3, 6]));
 * output instanceof tf.Tensor && output.shape; // => [5, 6]
 * experts.weights.map(({shape}) => shape); // => [[6, 4], [4, 16, 6], [4, 6, 8]]
 * (await experts.expertLoad().array()).reduce((sum, count) => sum + count); // => 30
 * ```
 *
 * The layer works in sequential and functional models, in fit, fitDataset, evaluate and predict. It is saved and loaded
 * like any other layer. In `tfjs-moe/tf` it is `tf.layers.mixtureOfExperts`. Else import it from `tfjs-moe/layers`;
 * that import also registers it, which must happen before a model with the layer is loaded.
 *
 * **Router.** Logits are x . router_kernel (+ router_bias), and moeTopk chooses the experts.
 *
 * **Balance.** In fit and trainOnBatch the layer adds `loadBalancingLossWeight` times moeLoadBalancingLoss and
 * `routerZLossWeight` times moeRouterZLoss to the loss. evaluate and predict do not add them. With
 * `loadBalancingLossPer: 'sequence'` each sequence of [B, S, H] is balanced by itself. Your own training loop calls
 * `model.apply(x, {training: true})` and adds `model.calculateLosses()`, once for each gradient, after all of its
 * calls. `scoreCorrectionBiasUpdateRate` balances without a loss, as DeepSeek-V3 does: each training step moves the
 * bias of an expert by the rate, up if its load is less than the mean, down if it is more.
 *
 * **Masks.** A token that the mask of an Embedding (maskZero) or Masking layer leaves out goes to no expert and counts
 * in no loss and no load, and its output is 0. tf.layers passes a mask on to later layers too, even if it is not for
 * them. The layer ignores a mask whose shape is not that of the input without its last axis. It cannot tell a foreign
 * mask of that shape from its own.
 *
 * **Capacity.** With `capacityFactor`, an expert takes in training at most ceil(capacityFactor * T * topk / E) of the T
 * tokens of a call; T includes masked tokens. Each further token loses that expert and keeps the weights of its other
 * experts.
 *
 * **Counts.** expertLoad, expertLoadEntropy and droppedShare describe the last batch. They count all calls of the layer
 * in the batch: both calls in a model that uses the layer twice, and every step of timeDistributed. A batch is one of
 * these:
 * - a training step: everything that one gradient records;
 * - a predict, an evaluate, or the validation of an epoch of fit, with all rows, whatever its `batchSize` is; for a
 *   dataset, only its last batch;
 * - a model.apply, and in general everything within one outermost tf.tidy, until the program awaits something or asks
 *   for a count;
 * - a call outside tf.tidy. model.execute opens no tf.tidy.
 *
 * The auxiliary loss of a training step is the mean over its calls. A model adds it once for each of its uses of the
 * layer. The score correction bias moves once for a training step, by the load of all calls.
 *
 * **Weights**, in the order of `layer.weights` and with their names in saved files: router_kernel [H, E], router_bias
 * [E], w1 [E, 2I, H], w1_bias [E, 2I], w2 [E, H, I], w2_bias [E, H], shared_w1 [2F, H], shared_w2 [H, F], shared_gate
 * [H, 1], and score_correction_bias [E], which is not trainable. F is sharedIntermediateSize. 2I and 2F are the gates,
 * then the ups, for every activation (`gateUp: 'concatenated'` of the ops); without `gated` they are I and F. A weight
 * is absent if no argument asks for it. With `numZeroExperts` Z, router_kernel is [H, E+Z], and router_bias and
 * score_correction_bias are [E+Z].
 *
 * **Quantized experts.** With an `expertFormat` other than `'float32'`, w1 is w1_codes, w1_scales and w1_offsets, and
 * w2 is w2_codes, w2_scales and w2_offsets: the tensors of QuantizedWeights for w1 [E, 2I, H] and w2 [E, H, I], without
 * those that the format does not have. They are not trainable, so they come after the trainable weights in
 * `layer.weights`, before score_correction_bias. Files hold them as they are, int32 and float32. They are 0 until they
 * are set. quantizeMixtureOfExperts makes such a layer from a trained one. All else is as before: router, biases and
 * shared experts are float32 and train, and the input has a gradient.
 *
 * **Freezing.** A layer that is frozen, by its own `trainable` or by its model's, adds no loss and keeps its bias.
 * tf.layers 4.22 has two limits. A frozen model within a sequential model is unfrozen when the sequential model is
 * compiled. Freezing a model reaches the layers that it holds, but not the layers of models within it. In such models,
 * set this layer's own `trainable`.
 *
 * Gradient: to the input and every trainable weight, of any order. Chosen experts and dropped assignments are held
 * fixed.
 *
 * @param args  {@link MixtureOfExpertsArgs}, and the arguments of every layer of tf.layers.
 *
 * @throws if an argument is unknown or does not fit, before the layer is made. A call throws if its input is no tensor.
 *     It also throws if its input comes from another copy of tfjs, whose models take only layers of registerMoeLayers.
 *
 * Source: GShard, Switch Transformers, DeepSeek-V3; Megatron-LM `MoELayer`.
 */
export interface MixtureOfExperts extends layers.Layer {
  /**
   * int32 [E]: how many tokens of the last batch each expert ran, on the device. Exact up to 2^24. [E+Z] with Z zero
   * experts, which come last.
   */
  expertLoad(): Tensor1D;
  /** float32 scalar: the entropy of the shares of expertLoad, in nats; ln(E) if all experts have the same load. */
  expertLoadEntropy(): Scalar;
  /**
   * float32 scalar: the part of the last batch's assignments that was dropped, being past the capacity of its expert.
   * It is 0 if there were no tokens. It is also 0 after validation, in which nothing is dropped; fit validates before
   * an epoch ends.
   */
  droppedShare(): Scalar;
}

/** The class MixtureOfExperts, made for one copy of tfjs. */
export type MixtureOfExpertsClass = {
  new (args: MixtureOfExpertsArgs): MixtureOfExperts;
  /** The members of every layer of the class. */
  readonly prototype: MixtureOfExperts;
  /** 'MixtureOfExperts', its name in saved models. */
  className: string;
  /** Makes a layer from the arguments of getConfig, in the form that a saved model has. */
  fromConfig: (typeof layers.Layer)['fromConfig'];
};

type Parts = PartsOf<typeof weightArgParts>;

/** The class of the layer, for `tf` and its BaseLayer. */
export function makeMixtureOfExperts(tf: TfjsLayers, BaseLayer: BaseLayerClass): MixtureOfExpertsClass {
  class MixtureOfExpertsLayer extends BaseLayer<MixtureOfExpertsOptions, Parts, LayerWeightName> {
    static className = 'MixtureOfExperts';
    private readonly batches = new Batches();
    private readonly auxiliaryLosses = new AuxiliaryLosses();
    private readonly scoreCorrection = new ScoreCorrection();
    private readonly batchLoad: BatchLoad;
    private numJitters = 0;

    constructor(args: MixtureOfExpertsArgs) {
      const options = checkArgs(args, opName);
      const weightParts = resolveWeightParts(tf, args, weightArgParts, opName);
      super(args, {opName, options, weightParts});
      this.batchLoad = new BatchLoad(options.numExperts + options.numZeroExperts);
      this.inputSpec = [{minNDim: this.minRank()}];
      if (options.loadBalancingLossWeight > 0 || options.routerZLossWeight > 0) {
        this.addLoss(() => this.auxiliaryLoss());
      }
    }

    override build(inputShape: Shape): void {
      const hiddenSize = lastAxis(inputShape, opName);
      assertWholeWords(hiddenSize, this.options.expertFormat, 'the last axis of the input (H)', opName);
      for (const spec of weightSpecs(this.options, this.parts, hiddenSize)) {
        this.addNamedWeight(spec);
      }
      this.whenDisposed(() => {
        this.auxiliaryLosses.dispose();
        this.scoreCorrection.dispose();
        this.batchLoad.dispose();
      });
      this.inputSpec = [{minNDim: this.minRank(), axes: {[-1]: hiddenSize}}];
      super.build(inputShape);
    }

    override forward([input]: Tensor[], kwargs: Kwargs): Tensor {
      const isTraining = Boolean(kwargs?.training);
      const {x, mask} = tokensOf(input, tokenMask(kwargs?.mask, input.shape));
      // A frozen model freezes the weights of its layers, but does not change their `trainable`.
      const isLearning = isTraining && this.trainableWeights.length > 0;
      const batch = this.batches.batchOf(isTraining);
      const logits = this.routerLogits(x, isTraining);
      const {topkWeights, topkIds} = this.chooseExperts(logits, batch);
      const chosenIds = mask == null ? topkIds : where(expandDims(mask, 1), topkIds, noExperts(topkIds.shape));
      const keptIds = isTraining ? this.dropPastCapacity(chosenIds, topkWeights) : chosenIds;
      if (isLearning) {
        const numSequences = input.size > 0 ? input.shape[0] : 1;
        this.addAuxiliaryLosses(logits, chosenIds, mask, numSequences, batch);
        this.updateScoreCorrectionBias(chosenIds, batch);
      }
      this.batchLoad.add({chosenIds, keptIds}, batch);
      const output = this.outputOf(x, topkWeights, keptIds);
      return reshape(input.size > 0 ? output : slice(output, 0, 0), input.shape);
    }

    expertLoad(): Tensor1D {
      return tidy(() => this.loadsFor('expertLoad').kept);
    }

    expertLoadEntropy(): Scalar {
      return tidy(() => entropyOf(this.loadsFor('expertLoadEntropy').kept));
    }

    droppedShare(): Scalar {
      return tidy(() => droppedShareOf(this.loadsFor('droppedShare')));
    }

    private minRank(): number {
      return this.options.loadBalancingLossPer === 'sequence' ? 3 : 2;
    }

    /** Not with tfjs's matMul, because its gradient to the kernel is a float32 sum over all tokens. */
    private routerLogits(x: Tensor2D, isTraining: boolean): Tensor2D {
      const bias = this.read('router_bias');
      return moeGroupedMatMul(
        isTraining ? this.withJitter(x) : x,
        expandDims<Tensor3D>(this.read('router_kernel')!, 0),
        tensor1d([0, x.shape[0]], 'int32'),
        {weightFormat: 'inOut', bias: bias && expandDims(bias, 0)},
      );
    }

    private withJitter(x: Tensor2D): Tensor2D {
      const {routerJitter, seed} = this.options;
      if (routerJitter === 0) {
        return x;
      }
      const seedOfCall = seed == null ? undefined : seedOf(seed, this.numJitters++);
      return mul(x, randomUniform(x.shape, 1 - routerJitter, 1 + routerJitter, 'float32', seedOfCall));
    }

    private chooseExperts(logits: Tensor2D, batch: Batch) {
      const {topk, scoring, renormalize, numExpertGroups, topkGroups, sparsemixerJitter, routedScalingFactor} =
        this.options;
      const {score_correction_bias: bias} = this.variables;
      const scoreCorrectionBias = bias && this.scoreCorrection.biasOf(bias, batch);
      return moeTopk(logits, topk, {
        scoring,
        renormalize,
        scoreCorrectionBias,
        numExpertGroups,
        topkGroups,
        sparsemixerJitter,
        routedScalingFactor,
      });
    }

    private dropPastCapacity(ids: Tensor2D, weights: Tensor2D): Tensor2D {
      const {capacityFactor, numExperts} = this.options;
      if (capacityFactor == null) {
        return ids;
      }
      const capacity = expertCapacity(ids.shape[0], ids.shape[1], numExperts, capacityFactor);
      return dropOverCapacity(ids, weights, capacity, this.options);
    }

    private addAuxiliaryLosses(
      logits: Tensor2D,
      topkIds: Tensor2D,
      mask: Tensor1D | undefined,
      numSequences: number,
      batch: Batch,
    ): void {
      const {loadBalancingLossWeight, loadBalancingLossPer: per, routerZLossWeight, scoring} = this.options;
      const losses: Scalar[] = [];
      if (loadBalancingLossWeight > 0) {
        const sequencesOf = (rows: Tensor2D): Tensor => reshape(rows, [numSequences, -1, rows.shape[1]]);
        const loss =
          per === 'batch'
            ? moeLoadBalancingLoss(logits, topkIds, {mask, scoring})
            : moeLoadBalancingLoss(sequencesOf(logits), sequencesOf(topkIds), {
                mask: mask && reshape(mask, [numSequences, -1]),
                scoring,
                per,
              });
        losses.push(mul(loss, loadBalancingLossWeight));
      }
      if (routerZLossWeight > 0) {
        losses.push(mul(moeRouterZLoss(logits, {mask}), routerZLossWeight));
      }
      if (losses.length > 0) {
        this.auxiliaryLosses.add(
          losses.reduce((sum, loss) => add(sum, loss)),
          batch,
        );
      }
    }

    private updateScoreCorrectionBias(topkIds: Tensor2D, batch: Batch): void {
      const {scoreCorrectionBiasUpdateRate, numExperts, numZeroExperts} = this.options;
      if (scoreCorrectionBiasUpdateRate > 0) {
        const load: Tensor1D = cast(expertCounts(topkIds, numExperts + numZeroExperts), 'float32');
        const bias = this.variables.score_correction_bias!;
        this.scoreCorrection.update(bias, load, scoreCorrectionBiasUpdateRate, batch);
      }
    }

    /** w1 and w2 as the ops take them. */
    private expertWeights(): Array<Tensor | QuantizedWeights> {
      const format = weightFormatOf(this.options, expertFormatNames);
      return (['w1', 'w2'] as const).map((name) =>
        format.format === 'float32'
          ? this.read(name)!
          : quantizedWeightsIn(name, format, (weightName) => this.read(weightName)),
      );
    }

    private outputOf(x: Tensor2D, topkWeights: Tensor2D, topkIds: Tensor2D): Tensor2D {
      const {activation, gated, swigluAlpha, swigluLimit, numZeroExperts, applyRouterWeightOnInput} = this.options;
      const [sharedW1, sharedW2] = [this.read('shared_w1'), this.read('shared_w2')];
      const [w1, w2] = this.expertWeights();
      return fusedExperts(x, w1, w2, topkWeights, topkIds, {
        activation,
        gated,
        // For every activation, because files hold weights in this order.
        gateUp: 'concatenated',
        swigluAlpha,
        swigluLimit,
        numZeroExperts,
        applyRouterWeightOnInput,
        w1Bias: this.read('w1_bias'),
        w2Bias: this.read('w2_bias'),
        sharedExperts: sharedW1 && sharedW2 && {w1: sharedW1, w2: sharedW2, gate: this.read('shared_gate')},
      });
    }

    /** 0 in a gradient in which the layer was not called. */
    private auxiliaryLoss(): Scalar {
      this.batches.end();
      return this.batches.isOfTape(this.auxiliaryLosses.batch) ? this.auxiliaryLosses.mean() : scalar(0);
    }

    private loadsFor(method: string) {
      this.batches.end();
      const loads = this.batchLoad.loads();
      if (loads == null) {
        throw new Error(`Error in ${opName}: ${method}() needs a batch, but layer '${this.name}' has had none yet.`);
      }
      return loads;
    }
  }
  return MixtureOfExpertsLayer as unknown as MixtureOfExpertsClass;
}

/** The mask as bool [T], or undefined. */
function tokenMask(mask: Mask, inputShape: number[]): Tensor1D | undefined {
  const given = fittingMask(mask, inputShape.slice(0, -1));
  return given && cast(reshape(given, [given.size]) as Tensor1D, 'bool');
}

/**
 * `x`, float32 [T, H]. Masked tokens become 0, and so do their outputs, so that their contents go nowhere. An empty
 * input becomes one masked token, because tfjs's gradients of empty tensors fail on GPUs.
 */
function tokensOf(input: Tensor, mask: Tensor1D | undefined): {x: Tensor2D; mask: Tensor1D | undefined} {
  const hiddenSize = input.shape[input.rank - 1];
  const tokens = cast(reshape<Rank.R2>(input, [input.size / hiddenSize, hiddenSize]), 'float32') as Tensor2D;
  if (input.size === 0) {
    return {x: concat([tokens, zeros<Rank.R2>([1, hiddenSize])]), mask: tensor1d([false], 'bool')};
  }
  return {x: mask == null ? tokens : where(expandDims(mask, 1), tokens, zerosLike(tokens)), mask};
}

const noExperts = (shape: [number, number]): Tensor2D => fill<Rank.R2>(shape, -1, 'int32');
