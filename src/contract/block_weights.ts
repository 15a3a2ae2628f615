/** The weights of a mixture-of-experts block: in the layer, in its saved files, and in checkpoints. */

/** In the order of the layer and of saved files. Neither the order nor a name may ever change. */
export const weightNames = [
  'router_kernel',
  'router_bias',
  'w1',
  'w1_bias',
  'w2',
  'w2_bias',
  'shared_w1',
  'shared_w2',
  'shared_gate',
  'score_correction_bias',
] as const;

export type WeightName = (typeof weightNames)[number];

/**
 * In a layer of quantized experts, in place of w1 and w2 and in this order. Neither the order nor a name may ever
 * change.
 */
export const quantizedWeightNames = [
  'w1_codes',
  'w1_scales',
  'w1_offsets',
  'w2_codes',
  'w2_scales',
  'w2_offsets',
] as const;

/** The name of a weight of a layer, whose experts may be quantized. */
export type LayerWeightName = WeightName | (typeof quantizedWeightNames)[number];
