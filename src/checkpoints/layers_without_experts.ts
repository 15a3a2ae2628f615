/** Which layers of a model have no mixture-of-experts block, by the keys that families have for it. */
import {isInteger, type MoeModelConfig} from './config_reader';
import {shorten} from '../arguments/checks';

/** Why layer `layer` has no experts, or undefined if these keys do not say so. */
type Rule = (config: MoeModelConfig, layer: number) => string | undefined;

/** Layers first, first + step, first + 2 step, … have experts. */
const everyFew = (first: unknown, step: unknown, layer: number, key: string): string | undefined =>
  isInteger(first) && isInteger(step) && step > 0 && (layer < first || (layer - first) % step !== 0)
    ? `Only layers ${first}, ${first + step}, … have experts (${key}).`
    : undefined;

const denseBefore =
  (key: string): Rule =>
  ({[key]: numDense}, layer) =>
    typeof numDense === 'number' && layer < numDense
      ? `Layers before ${numDense} have no experts (config.${key}).`
      : undefined;

/** A list of the kinds of all layers, of which `kinds` have experts. */
const kindOfLayer =
  (key: string, ...kinds: unknown[]): Rule =>
  ({[key]: list}, layer) =>
    Array.isArray(list) && layer < list.length && !kinds.includes(list[layer])
      ? `Layer ${layer} has no experts that these ops run: it is ${shorten(JSON.stringify(list[layer]))} (config.${key}).`
      : undefined;

const rules: readonly Rule[] = [
  denseBefore('first_k_dense_replace'),
  denseBefore('num_dense_layers'),
  denseBefore('num_hash_layers'),
  ({mlp_only_layers: dense}, layer) =>
    Array.isArray(dense) && dense.includes(layer)
      ? `Layer ${layer} has no experts (config.mlp_only_layers).`
      : undefined,
  ({decoder_sparse_step: step}, layer) =>
    everyFew(isInteger(step) ? step - 1 : undefined, step, layer, 'config.decoder_sparse_step'),
  kindOfLayer('mlp_layer_types', 'sparse', 'moe'),
  kindOfLayer('layers_block_type', 'moe'),
  kindOfLayer('moe_layer_freq', 1),
  ({hybrid_override_pattern: pattern}, layer) =>
    typeof pattern === 'string' && layer < pattern.length && pattern[layer] !== 'E'
      ? `Layer ${layer} has no experts (config.hybrid_override_pattern).`
      : undefined,
  ({moe_layer_start_index: start, moe_layer_end_index: end}, layer) =>
    (isInteger(start) && layer < start) || (isInteger(end) && end >= 0 && layer > end)
      ? `Only layers from config.moe_layer_start_index to config.moe_layer_end_index have experts, but not ${layer}.`
      : undefined,
  ({moe_layer_interval: interval}, layer) =>
    everyFew(isInteger(interval) ? interval - 1 : undefined, interval, layer, 'config.moe_layer_interval'),
  ({expert_layer_offset: offset, expert_layer_period: period}, layer) =>
    everyFew(offset, period, layer, 'config.expert_layer_offset and config.expert_layer_period'),
  ({moe_layers: sparse}, layer) =>
    Array.isArray(sparse) && !sparse.includes(layer) ? `Layer ${layer} has no experts (config.moe_layers).` : undefined,
  ({interleave_moe_layer_step: step, moe_layers: sparse}, layer) =>
    sparse == null
      ? everyFew(isInteger(step) ? step - 1 : undefined, step, layer, 'config.interleave_moe_layer_step')
      : undefined,
  ({num_hidden_layers: hidden, n_layers: ofDbrx, num_layers: ofLongcat}, layer) => {
    const [key, numLayers] =
      ofLongcat != null
        ? ['num_layers', ofLongcat]
        : ofDbrx != null
          ? ['n_layers', ofDbrx]
          : ['num_hidden_layers', hidden];
    return typeof numLayers === 'number' && layer >= numLayers
      ? `config.${key as string} is ${numLayers}, and layers are counted from 0.`
      : undefined;
  },
];

/** The reasons in config.json for which layer `layer` may lack the weights of its family's layers. */
export function whyLayerMayDiffer(config: MoeModelConfig, layer: number): string[] {
  const {text_config: nested} = config;
  const ofText = (typeof nested === 'object' && nested != null ? nested : {}) as MoeModelConfig;
  const reasons: string[] = [];
  for (const rule of rules) {
    const reason = rule({...config, ...ofText}, layer);
    if (reason != null) {
      reasons.push(reason);
    }
  }
  return reasons;
}
