/**
 * DeepSeek-V3's block, which many families have under other keys and names: sigmoid scores, a bias for the choice,
 * groups of experts, a scale, and shared experts. The sum that weights are divided by has 1e-20 added in transformers,
 * which no float32 sum of chosen sigmoids shows.
 */
import type {ConfigReader, Sizes} from '../config_reader';
import type {CheckpointBlock, CheckpointLayout, CheckpointWeights, LayoutOf, MoeCheckpointRouting} from './layout';
import {gateAndProjections, scoreCorrection, sharedExperts} from './parts';

/** What transformers takes where config.json lacks a key. */
type Defaults = {
  renormalize?: boolean;
  scale?: number;
  groups?: number;
  topkGroups?: number;
  numShared?: number;
};

/** The keys of config.json. */
type Keys = {
  numExperts: string;
  topk: string;
  numShared: string;
  renormalize: string;
  scale: string;
  groups: string;
  topkGroups: string;
};

const usualKeys: Keys = {
  numExperts: 'n_routed_experts',
  topk: 'num_experts_per_tok',
  numShared: 'n_shared_experts',
  renormalize: 'norm_topk_prob',
  scale: 'routed_scaling_factor',
  groups: 'n_group',
  topkGroups: 'topk_group',
};

/** The sizes, and how sigmoid scores choose. */
export function deepseekRouting(config: ConfigReader, defaults: Defaults, given: Partial<Keys> = {}) {
  const keys = {...usualKeys, ...given};
  const sizes = config.sizes(config.either(keys.numExperts, 'num_local_experts'), 'moe_intermediate_size');
  const routing: Omit<MoeCheckpointRouting, 'activation'> & {numExpertGroups: number} = {
    scoring: 'sigmoid',
    renormalize: config.boolean(keys.renormalize, defaults.renormalize ?? true),
    numExpertGroups: config.size(keys.groups, defaults.groups ?? 1),
    topkGroups: config.size(keys.topkGroups, defaults.topkGroups ?? 1),
    routedScalingFactor: config.number(keys.scale, defaults.scale ?? 1),
  };
  const configKeys = {
    topk: keys.topk,
    numExpertGroups: keys.groups,
    topkGroups: keys.topkGroups,
    routedScalingFactor: keys.scale,
  };
  return {sizes, topk: config.topk(sizes, keys.topk), routing, configKeys, numSharedKey: keys.numShared};
}

type OwnWeights = (block: CheckpointBlock, sizes: Sizes) => CheckpointWeights;

/** The names of DeepSeek-V3. */
const usualWeights: OwnWeights = (block, sizes) => ({
  ...gateAndProjections(block, sizes),
  score_correction_bias: scoreCorrection(sizes, block, 'mlp.gate.e_score_correction_bias'),
});

export function deepseekLayout(
  config: ConfigReader,
  block: CheckpointBlock,
  defaults: Defaults,
  {
    keys,
    weights: own = usualWeights,
    sharedPath,
  }: {keys?: Partial<Keys>; weights?: OwnWeights; sharedPath?: string} = {},
): CheckpointLayout {
  const {sizes, topk, routing, configKeys, numSharedKey} = deepseekRouting(config, defaults, keys);
  const shared = sharedExperts(config, block, sizes, numSharedKey, defaults.numShared ?? 1, sharedPath);
  return {
    ...sizes,
    sharedIntermediateSize: shared.sharedIntermediateSize,
    topk,
    weights: {...own(block, sizes), ...shared.weights},
    configKeys,
    routing: {...routing, activation: config.activation()},
  };
}

/** A family with DeepSeek-V3's keys and names. */
const likeDeepseekV3 =
  (defaults: Defaults = {}): LayoutOf =>
  (config, block) => {
    config.only('topk_method', ['noaux_tc']);
    config.only('scoring_func', ['sigmoid']);
    return deepseekLayout(config, block, defaults);
  };

/** DeepseekV3MoE and DeepseekV32MoE. */
export const deepseekV3 = likeDeepseekV3({groups: 8, topkGroups: 4, scale: 2.5});
/** Glm4MoeMoE and SolarOpenMoE. */
export const glm4Moe = likeDeepseekV3();
/** Glm4MoeLiteMoE. */
export const glm4MoeLite = likeDeepseekV3({scale: 1.8});
/** Dots1MoE. */
export const dots1 = likeDeepseekV3({renormalize: false, numShared: 0});
/** MiMoV2FlashMoE has no shared experts. */
export const mimoV2Flash = likeDeepseekV3({numShared: 0});
