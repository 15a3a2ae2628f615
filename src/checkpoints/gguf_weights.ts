/** The block's weights in a GGUF file, whose names and layouts are the same for all families. */
import type {WeightName} from '../contract/block_weights';
import type {CheckpointTensors} from './files/safetensors';
import type {CheckpointLayout, CheckpointWeight} from './layouts';

/** Names of safetensors files never begin so. */
export const isGguf = (tensors: CheckpointTensors): boolean =>
  [...tensors.keys()].some((name) => typeof name === 'string' && name.startsWith('blk.'));

/** The weights of the layout, as llama.cpp's converters store them: gates and ups apart, and never interleaved. */
export function ggufWeights(
  {numExperts: E, hiddenSize: H, intermediateSize: I, sharedIntermediateSize: F, weights}: CheckpointLayout,
  layerIndex: number,
  tensors: CheckpointTensors,
): Partial<Record<WeightName, CheckpointWeight>> {
  const nameOf = (name: string) => `blk.${layerIndex}.${name}`;
  const isThere = (name: string) => tensors.has(nameOf(name));
  const stored = (shape: number[], ...names: string[]) => ({
    count: names.length,
    shape,
    nameOf: (index: number) => nameOf(names[index]),
  });
  /** Gates and ups of `lead`, in tensors of their own, or one tensor of both. */
  const gateUp = (
    weight: CheckpointWeight,
    lead: number[],
    width: number,
    row: number[],
    kind: string,
    part: string,
  ) => {
    const isGated = weight.shape[lead.length] === 2 * width;
    const joined = `ffn_gate_up_${kind}.${part}`;
    const names = !isGated
      ? [`ffn_up_${kind}.${part}`]
      : isThere(joined)
        ? [joined]
        : ['gate', 'up'].map((each) => `ffn_${each}_${kind}.${part}`);
    const rows = weight.shape[lead.length] / names.length;
    return {tensors: stored([...lead, rows, ...row], ...names), rowsInTurn: row.length === 0 ? 1 : rows};
  };
  const descriptions: Record<WeightName, (weight: CheckpointWeight) => Omit<CheckpointWeight, 'shape'>> = {
    router_kernel: ({shape: [, numRouted]}) => ({
      tensors: stored([numRouted, H], 'ffn_gate_inp.weight'),
      transposed: {rows: numRouted, columns: H},
    }),
    router_bias: ({shape}) => ({tensors: stored(shape, 'ffn_gate_inp.bias')}),
    score_correction_bias: ({shape}) => ({
      tensors: stored(shape, isThere('exp_probs_b') ? 'exp_probs_b' : 'exp_probs_b.bias'),
    }),
    w1: (weight) => gateUp(weight, [E], I, [H], 'exps', 'weight'),
    w1_bias: (weight) => gateUp(weight, [E], I, [], 'exps', 'bias'),
    w2: () => ({tensors: stored([E, H, I], 'ffn_down_exps.weight')}),
    w2_bias: () => ({tensors: stored([E, H], 'ffn_down_exps.bias')}),
    shared_w1: (weight) => gateUp(weight, [], F, [H], 'shexp', 'weight'),
    shared_w2: () => ({tensors: stored([H, F], 'ffn_down_shexp.weight')}),
    shared_gate: () => ({tensors: stored([H], 'ffn_gate_inp_shexp.weight')}),
  };
  return Object.fromEntries(
    (Object.entries(weights) as Array<[WeightName, CheckpointWeight]>).map(([name, weight]) => [
      name,
      weight.tensors.count === 0 ? weight : {shape: weight.shape, ...descriptions[name](weight)},
    ]),
  );
}
