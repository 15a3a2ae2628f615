/** The weights of the experts that MoeTopK has chosen, on WebGPU. */

/**
 * WGSL: the weight of a chosen expert by the key of its logit: its score, or the softmax of log(score) over the chosen.
 */
export const WEIGHTS_WGSL = /* wgsl */ `
  // What the chosen experts of a token have in common: the largest log(score), and the sum of exp(log(score) - largest).
  struct Chosen { largest : f32, sum : f32, hasInfinity : bool, isNan : bool }

  // Infinity has no softmax, but the score 1 or Infinity, beside which the scores of others are 0.
  fn chosenOf(largest : f32, sum : f32, isInfinite : bool, isRowNan : bool, isChosenNan : bool) -> Chosen {
    let isSoftmax = uniforms.isSoftmaxOfChosen != 0;
    let hasInfinity = isSoftmax && isInfinite && uniforms.scoring != SIGMOID;
    let isNan = isRowNan || (isSoftmax && isChosenNan) || (hasInfinity && uniforms.scoring != SQRT_SOFTPLUS);
    return Chosen(largest, sum, hasInfinity, isNan);
  }
  fn weightOf(key : u32, chosen : Chosen) -> f32 {
    if (uniforms.isSoftmaxOfChosen == 0) { return score(floatOfKey(max(key, FIRST_FINITE_KEY))); }
    if (key <= NEGATIVE_INFINITY_KEY || chosen.hasInfinity) { return 0.0; }
    return exp(logScore(finiteFloatOfKey(key)) - chosen.largest) / chosen.sum;
  }
  fn scaledBits(weight : f32, key : u32, chosen : Chosen) -> u32 {
    let isNan = chosen.isNan || key == NAN_KEY || (chosen.hasInfinity && key == INFINITY_KEY);
    return select(bitcast<u32>(weight * bitcast<f32>(uniforms.scalingBits)), NAN_BITS, isNan);
  }
`;
