/** The shapes that several families share. */
import {MAX_SIZE, type ConfigReader, type Sizes} from '../config_reader';
import type {CheckpointBlock, CheckpointTensors, CheckpointWeight, TransposedMatrices} from './layout';

export const weight = (
  shape: number[],
  tensors: CheckpointTensors,
  transposed?: TransposedMatrices,
): CheckpointWeight => ({shape, tensors, transposed});

export const named = (shape: number[], ...names: string[]): CheckpointTensors => ({
  count: names.length,
  shape,
  nameOf: (index) => names[index],
});

/** A weight that the family's checkpoints lack. */
export const zeros = (...shape: number[]): CheckpointWeight => weight(shape, named(shape));

/** The first of `names` that the checkpoint has, or the first of all. */
export const existing = ({at, hasTensor}: CheckpointBlock, names: string[]): string =>
  names.map((name) => at + name).find(hasTensor) ?? at + names[0];

/** [out, in] as in torch.nn.Linear, by the first of `names` that the checkpoint has, or by the first of all. */
export function routerKernel(
  {numExperts, hiddenSize}: Sizes,
  block: CheckpointBlock,
  ...names: string[]
): CheckpointWeight {
  const tensors = named([numExperts, hiddenSize], existing(block, names));
  return weight([hiddenSize, numExperts], tensors, {rows: numExperts, columns: hiddenSize});
}

/** A bias that takes part in the choice of experts only, by the first of `names` that the checkpoint has. */
export function scoreCorrection({numExperts}: Sizes, block: CheckpointBlock, ...names: string[]): CheckpointWeight {
  return weight([numExperts], named([numExperts], existing(block, names)));
}

/** A router in <path>.gate.weight, and experts of gate_proj, up_proj and down_proj: the most common names. */
export const gateAndProjections = (block: CheckpointBlock, sizes: Sizes, path = 'mlp') => ({
  router_kernel: routerKernel(sizes, block, `${path}.gate.weight`),
  ...projections(block, sizes, path),
});

export type ExpertTensors = {w1: CheckpointTensors; w2: CheckpointTensors};

/** Three tensors for each expert: `<path>.<expert>.<gate, up or down>.weight`. */
export function tensorsPerExpert(
  path: string,
  [gate, up, down]: readonly [string, string, string],
  sizes: Sizes,
): ExpertTensors {
  const {numExperts, hiddenSize, intermediateSize} = sizes;
  return {
    w1: {
      count: 2 * numExperts,
      shape: [intermediateSize, hiddenSize],
      nameOf: (index) => `${path}.${index >> 1}.${index % 2 === 0 ? gate : up}.weight`,
    },
    w2: {
      count: numExperts,
      shape: [hiddenSize, intermediateSize],
      nameOf: (expert) => `${path}.${expert}.${down}.weight`,
    },
  };
}

/** Two tensors for all experts, with a row for each output. */
export function stackedTensors(
  w1: string,
  w2: string,
  {numExperts, hiddenSize, intermediateSize}: Sizes,
): ExpertTensors {
  return {
    w1: named([numExperts, 2 * intermediateSize, hiddenSize], w1),
    w2: named([numExperts, hiddenSize, intermediateSize], w2),
  };
}

/** `stacked` if the checkpoint has one of its tensors, else `usual`. */
export function expertWeights(
  sizes: Sizes,
  {hasTensor}: CheckpointBlock,
  usual: ExpertTensors,
  stacked: ExpertTensors,
): {w1: CheckpointWeight; w2: CheckpointWeight} {
  const {numExperts, hiddenSize, intermediateSize} = sizes;
  const isStacked = hasTensor(stacked.w1.nameOf(0)) || hasTensor(stacked.w2.nameOf(0));
  const {w1, w2} = isStacked ? stacked : usual;
  return {
    w1: weight([numExperts, 2 * intermediateSize, hiddenSize], w1),
    w2: weight([numExperts, hiddenSize, intermediateSize], w2),
  };
}

/** One gated expert for all tokens; `w1` names its gate and its up, or one tensor with both. */
export function sharedExpert(w1: string[], w2: string, hiddenSize: number, sharedSize: number) {
  return {
    shared_w1: weight([2 * sharedSize, hiddenSize], named([(2 * sharedSize) / w1.length, hiddenSize], ...w1)),
    shared_w2: weight([hiddenSize, sharedSize], named([hiddenSize, sharedSize], w2)),
  };
}

export const sharedProjections = (path: string, hiddenSize: number, sharedSize: number) =>
  sharedExpert(
    [`${path}.gate_proj.weight`, `${path}.up_proj.weight`],
    `${path}.down_proj.weight`,
    hiddenSize,
    sharedSize,
  );

const projectionNames = ['gate_proj', 'up_proj', 'down_proj'] as const;

/** Experts in <path>.experts of gate_proj, up_proj and down_proj, or stacked as transformers 5 has them. */
export function projections(block: CheckpointBlock, sizes: Sizes, path = 'mlp') {
  const experts = `${block.at}${path}.experts`;
  return expertWeights(
    sizes,
    block,
    tensorsPerExpert(experts, projectionNames, sizes),
    stackedTensors(`${experts}.gate_up_proj`, `${experts}.down_proj`, sizes),
  );
}

/** Experts of w1, the gate, w3, the up, and w2, the down; or stacked as transformers 5 has them. */
export function numberedProjections(block: CheckpointBlock, sizes: Sizes, path: string, stackedPath = path) {
  const stacked = `${block.at}${stackedPath}.experts`;
  return expertWeights(
    sizes,
    block,
    tensorsPerExpert(`${block.at}${path}.experts`, ['w1', 'w3', 'w2'], sizes),
    stackedTensors(`${stacked}.gate_up_proj`, `${stacked}.down_proj`, sizes),
  );
}

/** Tensors for all experts with a row for each input: w1 [E, H, 2I], gates before ups, and w2 [E, I, H]. */
export function inOutExperts(w1: string, w2: string, {numExperts: E, hiddenSize: H, intermediateSize: I}: Sizes) {
  return {
    w1: weight([E, 2 * I, H], named([E, H, 2 * I], w1), {rows: H, columns: 2 * I}),
    w2: weight([E, H, I], named([E, I, H], w2), {rows: I, columns: H}),
  };
}

/** The shared experts of most families: `numShared` of the experts' width, stored as one. */
export function sharedExperts(
  config: ConfigReader,
  block: CheckpointBlock,
  {hiddenSize, intermediateSize}: Sizes,
  numSharedKey: string,
  byDefault: number,
  path = 'mlp.shared_experts',
) {
  const sharedIntermediateSize = sharedWidth(config, numSharedKey, intermediateSize, byDefault);
  return {
    sharedIntermediateSize,
    weights: sharedIntermediateSize === 0 ? {} : sharedProjections(block.at + path, hiddenSize, sharedIntermediateSize),
  };
}

/** The total width of shared experts that are stored as one expert; null counts as none. */
export function sharedWidth(config: ConfigReader, numSharedKey: string, width: number, byDefault: number): number {
  return config.count(numSharedKey, Math.floor(MAX_SIZE / width), byDefault) * width;
}
