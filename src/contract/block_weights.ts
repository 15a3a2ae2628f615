/** The weights of a mixture-of-experts block: of the layer, of its saved files, and of checkpoints. */

/** In the order of the layer and of saved files, which must never change; neither must a name. */
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
