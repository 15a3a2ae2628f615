/** The block of one layer of a checkpoint, as config.json describes it. */
import {assert, describeValue} from '../arguments/checks';
import {checkActivation} from '../arguments/experts';
import {checkRouting} from '../arguments/routing';
import {ConfigReader, type MoeModelConfig} from './config_reader';
import {families, layerPaths, refusedFamilies} from './families/index';
import type {CheckpointBlock, CheckpointLayout} from './families/layout';

export type {
  CheckpointLayout,
  CheckpointTensors,
  CheckpointWeight,
  CheckpointWeights,
  MoeCheckpointRouting,
  TransposedMatrices,
} from './families/layout';
export {whyLayerMayDiffer} from './layers_without_experts';

/** Where to look for the block: the layer, how names begin if that is given, and which tensors there are. */
export type CheckpointPlace = Pick<CheckpointBlock, 'hasTensor'> & {layerIndex: number; prefix?: string | null};

const isKeyOf = (object: object, key: unknown): key is string =>
  typeof key === 'string' && Object.prototype.hasOwnProperty.call(object, key);

/** The config of the language model, and how messages name it: multimodal models have it in text_config. */
export function textConfig(config: MoeModelConfig, opName: string): {config: MoeModelConfig; path: string} {
  assert(
    typeof config === 'object' && config != null && !Array.isArray(config),
    opName,
    () => `config must be the parsed config.json of the checkpoint, but is ${describeValue(config)}.`,
  );
  const {model_type: modelType, text_config: nested} = config;
  const isOfText = !isKeyOf(families, modelType) && typeof nested === 'object' && nested != null;
  return isOfText ? {config: nested as MoeModelConfig, path: 'config.text_config'} : {config, path: 'config'};
}

/** How names may begin up to the layer's number: the usual one first, then those of multimodal models. */
function pathsOf(modelType: string, {prefix}: CheckpointPlace): string[] {
  const [usual, ...others] = layerPaths[modelType] ?? ['model.layers.'];
  if (prefix != null) {
    return [prefix + usual.slice(usual.indexOf('.') + 1)];
  }
  return [usual, ...others, 'model.language_model.layers.', 'language_model.model.layers.'];
}

export function checkpointLayout(config: MoeModelConfig, place: CheckpointPlace, opName: string): CheckpointLayout {
  const {config: ofText, path} = textConfig(config, opName);
  const modelType = ofText['model_type'];
  assert(
    !isKeyOf(refusedFamilies, modelType),
    opName,
    () => `${path}.model_type is ${modelType}, which these ops cannot do: ${refusedFamilies[modelType as string]}.`,
  );
  const known = Object.keys(families).join(', ');
  assert(
    isKeyOf(families, modelType),
    opName,
    () => `${path}.model_type must be one of ${known}, but is ${describeValue(modelType)}.`,
  );
  const reader = new ConfigReader(ofText, path, opName);
  const layouts = pathsOf(modelType as string, place).map((layers) => () => {
    const block = {at: `${layers}${place.layerIndex}.`, hasTensor: place.hasTensor};
    return families[modelType as string](reader, block);
  });
  const usual = layouts[0]();
  const hasRouter = ({weights}: CheckpointLayout) => place.hasTensor(weights.router_kernel.tensors.nameOf(0));
  const others = layouts.slice(1);
  const layout = hasRouter(usual) ? usual : (others.map((make) => make()).find(hasRouter) ?? usual);
  inWordsOfConfig(path, layout, () => {
    const numRouted = layout.numExperts + (layout.routing.numZeroExperts ?? 0);
    checkRouting(numRouted, layout.topk, layout.routing, opName);
    checkActivation({...layout.routing, gated: layout.routing.gated ?? true}, opName);
  });
  return layout;
}

/** The usual keys of config.json for the options that fusedMoe checks. */
const usualKeys: {[option: string]: string} = {
  topk: 'num_experts_per_tok',
  numExpertGroups: 'n_group',
  topkGroups: 'topk_group',
  routedScalingFactor: 'routed_scaling_factor',
  sparsemixerJitter: 'router_jitter_noise',
  swigluAlpha: 'swiglu_alpha',
  swigluLimit: 'swiglu_limit',
};

function inWordsOfConfig(path: string, {configKeys}: CheckpointLayout, check: () => void): void {
  try {
    check();
  } catch (error) {
    const keys = {...usualKeys, ...configKeys};
    const options = new RegExp(`\\b(${Object.keys(keys).join('|')})\\b`, 'g');
    throw new Error((error as Error).message.replace(options, (option) => `${path}.${keys[option]}`));
  }
}
