import {scalar, type serialization, type Tensor, tidy} from '@tensorflow/tfjs-core';
import type {LayerVariable} from '@tensorflow/tfjs-layers';
import {assert, describeValue} from '../arguments/checks';
import {checkQuantization, type MoeQuantizeWeightsOptions} from '../arguments/quantization';
import {moeQuantizeWeights} from '../ops/moe_quantize_weights';
import type {ExpertFormat} from './expert_format';
import {assertWholeWords, checkGroupSize} from './weight_format';
import type {TfjsLayers} from './weight_parts';
import type {MixtureOfExperts, MixtureOfExpertsClass} from './mixture_of_experts';
import {baseClassOf} from './register_layers';

type Shape = Parameters<MixtureOfExperts['build']>[0];

const opName = 'quantizeMixtureOfExperts';

/**
 * A layer like `layer`, with the same name, config, router, biases and shared experts, whose experts are quantized by
 * moeQuantizeWeights. `layer` stays as it is.
 *
 * ```js
 * const experts = tf.layers.mixtureOfExperts({numExperts: 4, intermediateSize: 16, inputShape: [8]});
 * const model = tf.sequential({layers: [experts]}); // builds the layer
 * const quantized = tf.sequential({layers: [tf.quantizeMixtureOfExperts(experts, {format: 'int8', groupSize: 16})]});
 * const [wanted, given] = [model, quantized].flatMap((each) => each.predict(tf.ones([1, 8])));
 * (await tf.max(tf.abs(tf.sub(given, wanted))).data())[0] < 0.05; // => true
 * const weights = quantized.getWeights(); // router_kernel, w1_codes, w1_scales, w2_codes, w2_scales
 * weights.map(({dtype}) => dtype); // => ['float32', 'int32', 'float32', 'int32', 'float32']
 * weights.map(({shape}) => shape); // => [[8, 4], [4, 32, 2], [4, 32, 1], [4, 8, 4], [4, 8, 1]]
 * ```
 *
 * The new layer is saved, loaded and used like any MixtureOfExperts. Its experts are frozen; its router, biases and
 * shared experts train. To quantize a whole model, make the model again with the new layer and copy the weights of the
 * other layers. Dispose `layer`, or its model, if it is not needed any more. A wrapper of the new layer, such as
 * timeDistributed, must have the name of the old layer's, or tf.layers does not find the weights when it loads a file.
 *
 * @param layer  A built MixtureOfExperts with `expertFormat: 'float32'`.
 * @param options  {@link MoeQuantizeWeightsOptions}: format, groupSize (a multiple of 16), symmetric and scaleFormat.
 * @returns a built layer, in no model yet. Its expertFormat and expertGroupSize are `format` and `groupSize`.
 *
 * @throws if `layer` is no MixtureOfExperts, is not built or is quantized already. Also if an option does not fit, or
 *     if H or I does not fill whole words. No weight is made then.
 */
export function quantizeMixtureOfExperts(
  layer: MixtureOfExperts,
  options?: MoeQuantizeWeightsOptions | null,
): MixtureOfExperts {
  const Layer = baseClassOf(layer);
  assert(Layer != null, opName, () => `layer must be a MixtureOfExperts layer, but is ${describeValue(layer)}.`);
  assert(
    layer.weights.length > 0,
    opName,
    () => `layer '${layer.name}' must be built, but has no weights. Call it, or its model, once first.`,
  );
  const config = layer.getConfig();
  const {expertFormat} = config;
  assert(
    expertFormat === 'float32',
    opName,
    () => `layer '${layer.name}' must have experts in float32, but has them in ${String(expertFormat)}.`,
  );
  const quantization = checkQuantization(options, opName);
  const weights = weightsByName(layer);
  const [hiddenSize] = weights.router_kernel.shape as number[];
  const {format, groupSize, symmetric, scaleFormat} = quantization;
  if (groupSize != null) {
    checkGroupSize(groupSize, 'groupSize', opName);
  }
  assertWholeWords(hiddenSize, format, `H of layer '${layer.name}'`, opName);
  assertWholeWords(config.intermediateSize as number, format, `intermediateSize of layer '${layer.name}'`, opName);

  const expertArgs: ExpertFormat = {
    expertFormat: format,
    expertGroupSize: groupSize ?? null,
    expertScaleFormat: scaleFormat ?? null,
    // That of moeQuantizeWeights is the default.
    expertZeroPoint: null,
    useExpertOffsets: !symmetric,
  };
  const LayerClass = layer.constructor as unknown as MixtureOfExpertsClass;
  const quantized = LayerClass.fromConfig(
    LayerClass as unknown as serialization.SerializableConstructor<MixtureOfExperts>,
    {...config, ...expertArgs} as unknown as serialization.ConfigDict,
  ) as MixtureOfExperts;
  tidy(() => {
    buildOutsideModel(Layer!, quantized, [null, hiddenSize], scopeOf(layer));
    const weightsOfResult = weightsByName(quantized);
    for (const [name, weight] of Object.entries(weights)) {
      weightsOfResult[name]?.write(weight.read());
    }
    for (const name of ['w1', 'w2']) {
      const {codes, scales, offsets} = moeQuantizeWeights(weights[name].read(), options);
      for (const [part, tensor] of Object.entries({codes, scales, offsets})) {
        if (tensor != null) {
          weightsOfResult[`${name}_${part}`].write(tensor);
        }
      }
    }
  });
  return quantized;
}

/** The weights of a layer by their names without the layer's own. */
function weightsByName(layer: MixtureOfExperts): {[name: string]: LayerVariable} {
  return Object.fromEntries(
    layer.weights.map((weight) => [weight.originalName.slice(weight.originalName.lastIndexOf('/') + 1), weight]),
  );
}

/**
 * Builds `layer` with the names that its weights have in files. tf.layers puts a name before them only within a call,
 * and a call of the layer itself would count as its first batch.
 */
function buildOutsideModel(
  Layer: TfjsLayers['layers']['Layer'],
  layer: MixtureOfExperts,
  shape: Shape,
  scope: string,
): void {
  class Builder extends Layer {
    override call(inputs: Tensor): Tensor {
      layer.setFastWeightInitDuringBuild(true);
      layer.build(shape);
      return inputs;
    }
  }
  new Builder({name: scope}).apply(scalar(0));
}

/** What stands before the names of the layer's weights: its own name, or that of a wrapper such as timeDistributed. */
function scopeOf({name, weights: [{originalName}]}: MixtureOfExperts): string {
  return originalName.includes('/') ? originalName.slice(0, originalName.lastIndexOf('/')) : name;
}
