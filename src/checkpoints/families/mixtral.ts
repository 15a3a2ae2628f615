/** Mixtral's names, and the families that have them with another router. */
import type {ConfigReader, Sizes} from '../config_reader';
import type {CheckpointBlock, CheckpointLayout, LayoutOf, MoeCheckpointRouting} from './layout';
import {numberedProjections, routerKernel, scoreCorrection} from './parts';

const mixtralWeights = (block: CheckpointBlock, sizes: Sizes) => ({
  router_kernel: routerKernel(sizes, block, 'block_sparse_moe.gate.weight', 'mlp.gate.weight'),
  ...numberedProjections(block, sizes, 'block_sparse_moe', 'mlp'),
});

function mixtralLayout(
  config: ConfigReader,
  block: CheckpointBlock,
  routing: Omit<MoeCheckpointRouting, 'activation'>,
): CheckpointLayout {
  const sizes = config.sizes('num_local_experts', 'intermediate_size');
  return {
    ...sizes,
    sharedIntermediateSize: 0,
    topk: config.topk(sizes),
    weights: mixtralWeights(block, sizes),
    routing: {...routing, activation: config.activation()},
  };
}

/** MixtralSparseMoeBlock. */
export const mixtral: LayoutOf = (config, block) =>
  mixtralLayout(config, block, {scoring: 'softmax', renormalize: true});

/** MiniMaxSparseMoeBlock. MiniMax-Text-01's own code has shared experts too, of width 0 in its config. */
export const minimax: LayoutOf = (config, block) => {
  config.only('shared_intermediate_size', [0]);
  return mixtral(config, block);
};

/** PhimoeSparseMoeBlock: a sparse mixer of two experts, whose jitter counts without training too. */
export const phimoe: LayoutOf = (config, block) => {
  config.only('num_experts_per_tok', [2]);
  const layout = mixtralLayout(config, block, {
    scoring: 'sparsemixer',
    renormalize: false,
    sparsemixerJitter: config.number('router_jitter_noise', 0.01),
  });
  const names = ['block_sparse_moe.gate.weight', 'mlp.router.weight'];
  return {...layout, weights: {...layout.weights, router_kernel: routerKernel(layout, block, ...names)}};
};

/** MiniMaxM2SparseMoeBlock: sigmoid scores, and a bias for the choice. */
export const minimaxM2: LayoutOf = (config, block) => {
  config.only('scoring_func', ['sigmoid']);
  config.only('shared_intermediate_size', [0]);
  const layout = mixtralLayout(config, block, {scoring: 'sigmoid', renormalize: true});
  const names = ['block_sparse_moe.e_score_correction_bias', 'mlp.e_score_correction_bias'];
  return {...layout, weights: {...layout.weights, score_correction_bias: scoreCorrection(layout, block, ...names)}};
};
