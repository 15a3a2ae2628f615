/** The rotary embedding that config.json asks for, in the spelling of transformers 4 and of 5. */
import type {ConfigReader} from '../checkpoints/config_reader';
import type {CausalSelfAttentionArgs} from '../layers/causal_self_attention_options';
import {checkRotaryScaling, type RotaryScaling} from '../layers/rotary_embedding';

export type RotaryConfig = Pick<CausalSelfAttentionArgs, 'rotaryBase' | 'rotaryScaling'>;

/** What a family has if config.json says nothing. */
export type RotaryDefaults = {rotaryBase: number; rotaryScaling?: RotaryScaling};

/** With all defaults, as the config of a layer has it. */
export function rotaryConfig(config: ConfigReader, byDefault: RotaryDefaults, opName: string): RotaryConfig {
  const {rotaryBase, rotaryScaling} = givenConfig(config, byDefault);
  return {rotaryBase, rotaryScaling: checkRotaryScaling(rotaryScaling, opName)};
}

function givenConfig(config: ConfigReader, byDefault: RotaryDefaults): RotaryConfig {
  const key = config.either('rope_parameters', 'rope_scaling');
  assertWholeHeads(config);
  if (!config.has(key)) {
    return {
      rotaryBase: config.positive('rope_theta', byDefault.rotaryBase),
      // Files of transformers 4 that have no scaling say rope_scaling: null.
      rotaryScaling: config.isNull('rope_scaling') ? null : (byDefault.rotaryScaling ?? null),
    };
  }
  const rope = config.nested(key);
  assertWholeHeads(rope);
  const rotaryBase = rope.positive('rope_theta', config.positive('rope_theta', byDefault.rotaryBase));
  return {rotaryBase, rotaryScaling: scalingOf(rope, config)};
}

/** Parts of heads that are not rotated. */
function assertWholeHeads(config: ConfigReader): void {
  config.only('partial_rotary_factor', [1]);
}

function scalingOf(rope: ConfigReader, config: ConfigReader): RotaryScaling | null {
  const type = rope.only(rope.either('rope_type', 'type'), ['default', 'linear', 'llama3', 'yarn'] as const);
  // Multiples of a length that transformers looks for in three places.
  const originalMaxPositions = () => {
    const key = 'original_max_position_embeddings';
    return rope.has(key) ? rope.size(key) : config.size(config.either(key, 'max_position_embeddings'));
  };
  switch (type) {
    case 'default':
      return null;
    case 'linear':
      return {type, factor: rope.positive('factor')};
    case 'llama3':
      return {
        type,
        factor: rope.positive('factor'),
        lowFreqFactor: rope.positive('low_freq_factor'),
        highFreqFactor: rope.positive('high_freq_factor'),
        originalMaxPositions: originalMaxPositions(),
      };
    case 'yarn': {
      const factor = rope.positive('factor');
      return {
        type,
        factor,
        originalMaxPositions: originalMaxPositions(),
        betaFast: rope.positive('beta_fast', 32),
        betaSlow: rope.positive('beta_slow', 1),
        attentionFactor: rope.positive('attention_factor', yarnAttentionFactor(rope, factor)),
        truncate: rope.boolean('truncate', true),
      };
    }
  }
}

function yarnAttentionFactor(rope: ConfigReader, factor: number): number {
  const magnitude = (scale: number) => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1);
  const [scale, ofAllDims] = [rope.number('mscale', 0), rope.number('mscale_all_dim', 0)];
  return scale !== 0 && ofAllDims !== 0 ? magnitude(scale) / magnitude(ofAllDims) : magnitude(1);
}
