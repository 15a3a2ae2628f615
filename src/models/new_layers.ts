/** The layers of a language model, made for one copy of tfjs. */
import type {input, layers, model} from '@tensorflow/tfjs-layers';
import type {ExpertFormatArgs} from '../layers/expert_format';
import type {MoeLayerFunctions} from '../layers/register_layers';
import type {TfjsLayers} from '../layers/weight_parts';
import type {DenseFormat} from './dense_format';
import {blockLayerNames, decoderLayerNames} from './decoder';
import type {BlockConfig, LanguageModelConfig} from './language_model_config';

/** The parts of a copy of tfjs that language models use. */
export type TfjsModels = TfjsLayers & {
  /** The layers that models are made of, beside those of this package. */
  layers: Pick<typeof layers, 'Layer' | 'dense' | 'multiply'>;
  /** Makes a model of symbolic tensors. */
  model: typeof model;
  /** Makes a symbolic tensor. */
  input: typeof input;
};

export type NewLayersOptions = {
  /** As the weights of new layers begin. Zeros cost nothing, for models that are loaded. */
  weights: 'random' | 'zeros';
  padTokenId: number | null;
  /** How block number `block` stores its experts. */
  expertFormat: (block: number) => ExpertFormatArgs;
  denseFormat: DenseFormat;
};

/** All layers but the input, by the names of decoderLayerNames and blockLayerNames. */
export function newLayers(
  tf: TfjsModels,
  made: MoeLayerFunctions,
  config: LanguageModelConfig,
  options: NewLayersOptions,
): layers.Layer[] {
  const {vocabSize, hiddenSize: units, epsilon, isTied, embeddingFactor, logitsFactor, blocks} = config;
  const {embedding, embeddingScale, norm, head, logitsScale} = decoderLayerNames;
  const initializer = initializerOf(config, options);
  const ofVocabulary = {vocabSize, units, embeddingsInitializer: initializer, ...options.denseFormat.embeddings};
  const scale = (name: string, factor: number) => (factor === 1 ? [] : [made.scaledSum({name, factors: [factor]})]);
  return [
    made.reversibleEmbedding({...ofVocabulary, name: embedding, padTokenId: options.padTokenId}),
    ...scale(embeddingScale, embeddingFactor),
    ...blocks.flatMap((_, block) => layersOfBlock(tf, made, config, options, block)),
    made.rmsNormalization({name: norm, epsilon}),
    ...(isTied ? [] : [made.reversibleEmbedding({...ofVocabulary, name: head})]),
    ...scale(logitsScale, logitsFactor),
  ];
}

function layersOfBlock(
  tf: TfjsModels,
  made: MoeLayerFunctions,
  config: LanguageModelConfig,
  options: NewLayersOptions,
  block: number,
): layers.Layer[] {
  const {epsilon, residualFactor, blocks} = config;
  const names = blockLayerNames(block);
  const {attention, dense} = blocks[block];
  const kernelInitializer = initializerOf(config, options);
  const factors = [1, residualFactor];
  return [
    made.rmsNormalization({name: names.attentionNorm, epsilon}),
    made.causalSelfAttention({
      ...attention,
      ...options.denseFormat.projections,
      kernelInitializer,
      name: names.attention,
    }),
    made.scaledSum({name: names.attentionSum, factors}),
    made.rmsNormalization({name: names.feedForwardNorm, epsilon}),
    ...(dense == null
      ? [expertsOfBlock(made, config, options, block, kernelInitializer)]
      : denseOfBlock(tf, dense, config.hiddenSize, block, kernelInitializer)),
    made.scaledSum({name: names.feedForwardSum, factors}),
  ];
}

type Initializer = Parameters<typeof layers.dense>[0]['kernelInitializer'];

function initializerOf({initializerRange}: LanguageModelConfig, {weights}: NewLayersOptions): Initializer {
  // Type: tf.layers takes a config too, as saved models have it.
  const normal = {className: 'RandomNormal', config: {mean: 0, stddev: initializerRange}} as unknown as 'randomNormal';
  return weights === 'zeros' ? 'zeros' : normal;
}

function expertsOfBlock(
  made: MoeLayerFunctions,
  config: LanguageModelConfig,
  {expertFormat}: NewLayersOptions,
  block: number,
  kernelInitializer: Initializer,
): layers.Layer {
  return made.mixtureOfExperts({
    ...config.experts,
    ...expertFormat(block),
    loadBalancingLossWeight: config.loadBalancingLossWeight,
    kernelInitializer,
    routerInitializer: kernelInitializer,
    name: blockLayerNames(block).experts,
  });
}

function denseOfBlock(
  {layers: {dense, multiply}}: TfjsModels,
  {width, activation}: NonNullable<BlockConfig['dense']>,
  hiddenSize: number,
  block: number,
  kernelInitializer: Initializer,
): layers.Layer[] {
  const {gate, up, product, down} = blockLayerNames(block);
  const projection = {useBias: false, kernelInitializer};
  return [
    // Type: tf.layers knows the activation, which its type forgets.
    dense({...projection, name: gate, units: width, activation: activation as 'relu'}),
    dense({...projection, name: up, units: width}),
    multiply({name: product}),
    dense({...projection, name: down, units: hiddenSize}),
  ];
}
