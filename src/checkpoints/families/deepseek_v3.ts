/**
 * DeepSeek-V3's block, which many families have under other keys and names: sigmoid scores, a bias for the choice,
 * groups of experts, a scale, and shared experts. The sum that weights are divided by has 1e-20 added in transformers,
 * which no float32 sum of chosen sigmoids shows.
 */
import type {ConfigReader, Sizes} from '../config_reader';
import type {CheckpointBlock, CheckpointLayout, CheckpointWeights, LayoutOf, MoeCheckpointRouting} from './layout';
import {
  gateAndProjections,
  named,
  numberedProjections,
  projections,
  routerKernel,
  scoreCorrection,
  sharedExperts,
  weight,
  zeros,
} from './parts';

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
function deepseekRouting(config: ConfigReader, defaults: Defaults, given: Partial<Keys> = {}) {
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

function deepseekLayout(
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

/** ExaoneMoeSparseMoEBlock. */
export const exaoneMoe: LayoutOf = (config, block) => {
  config.only('scoring_func', ['sigmoid']);
  const names = ['mlp.e_score_correction_bias', 'mlp.gate.e_score_correction_bias'];
  return deepseekLayout(
    config,
    block,
    {scale: 2.5},
    {
      keys: {numExperts: 'num_experts', numShared: 'num_shared_experts'},
      weights: (_, sizes) => ({
        ...gateAndProjections(block, sizes),
        score_correction_bias: scoreCorrection(sizes, block, ...names),
      }),
    },
  );
};

/** KimiLinearMoE: w1, w3 and w2 in block_sparse_moe. transformers' own modules are in mlp. */
export const kimiLinear: LayoutOf = (config, block) => {
  config.only('moe_router_activation_func', ['sigmoid']);
  const isRenamed = block.hasTensor(`${block.at}mlp.gate.weight`);
  const path = isRenamed ? 'mlp' : 'block_sparse_moe';
  return deepseekLayout(
    config,
    block,
    {scale: 2.446},
    {
      keys: {
        numExperts: 'num_experts',
        topk: config.either('num_experts_per_token', 'num_experts_per_tok'),
        numShared: config.either('num_shared_experts', 'n_shared_experts'),
        renormalize: config.either('moe_renormalize', 'norm_topk_prob'),
        groups: config.either('num_expert_group', 'n_group'),
      },
      weights: (_, sizes) => ({
        router_kernel: routerKernel(sizes, block, `${path}.gate.weight`),
        ...numberedProjections(block, sizes, path),
        score_correction_bias: scoreCorrection(sizes, block, `${path}.gate.e_score_correction_bias`),
      }),
      sharedPath: `${path}.shared_experts`,
    },
  );
};

/**
 * Mistral4MoE: softmax scores, and no bias. The value of a group is still the sum of its two best scores, as with a
 * bias, so that with several groups the bias is 0.
 */
export const mistral4: LayoutOf = (config, block) => {
  const layout = deepseekLayout(config, block, {}, {weights: gateAndProjections});
  const {numExperts, routing, weights} = layout;
  const hasGroups = routing.numExpertGroups! > 1;
  return {
    ...layout,
    routing: {...routing, scoring: 'softmax'},
    weights: {...weights, ...(hasGroups ? {score_correction_bias: zeros(numExperts)} : {})},
  };
};

/** NemotronHMoE: experts without gates, and a shared expert of its own width. */
export const nemotronH: LayoutOf = (config, block) => {
  config.only('mlp_bias', [false]);
  config.only('n_shared_experts', [1]);
  config.absent('moe_latent_size', 'experts in a latent space');
  const {sizes, topk, routing, configKeys} = deepseekRouting(config, {});
  const {numExperts: E, hiddenSize: H, intermediateSize: I} = sizes;
  const sharedIntermediateSize = config.size('moe_shared_expert_intermediate_size');
  const path = `${block.at}mixer`;
  const isStacked = block.hasTensor(`${path}.experts.up_proj`);
  const experts = (projection: string, shape: number[]) =>
    isStacked
      ? named([E, ...shape], `${path}.experts.${projection}`)
      : {count: E, shape, nameOf: (expert: number) => `${path}.experts.${expert}.${projection}.weight`};
  const shared = (projection: string, shape: number[]) =>
    weight(shape, named(shape, `${path}.shared_experts.${projection}.weight`));
  return {
    ...sizes,
    sharedIntermediateSize,
    topk,
    weights: {
      router_kernel: routerKernel(sizes, block, 'mixer.gate.weight'),
      w1: weight([E, I, H], experts('up_proj', [I, H])),
      w2: weight([E, H, I], experts('down_proj', [H, I])),
      shared_w1: shared('up_proj', [sharedIntermediateSize, H]),
      shared_w2: shared('down_proj', [H, sharedIntermediateSize]),
      score_correction_bias: scoreCorrection(sizes, block, 'mixer.gate.e_score_correction_bias'),
    },
    configKeys,
    routing: {...routing, activation: config.activation('mlp_hidden_act', 'relu2'), gated: false},
  };
};

/** AfmoeSparseMoeBlock: no groups. Its own code renormalizes if route_norm says so, transformers always. */
export const afmoe: LayoutOf = (config, block) => {
  config.only('score_func', ['sigmoid']);
  config.only('n_group', [1]);
  return deepseekLayout(
    config,
    block,
    {numShared: 2},
    {
      keys: {
        numExperts: 'num_experts',
        numShared: 'num_shared_experts',
        renormalize: 'route_norm',
        scale: 'route_scale',
      },
      weights: (_, sizes) => ({
        router_kernel: routerKernel(sizes, block, 'mlp.router.gate.weight'),
        ...projections(block, sizes),
        score_correction_bias: scoreCorrection(sizes, block, 'mlp.expert_bias'),
      }),
    },
  );
};
