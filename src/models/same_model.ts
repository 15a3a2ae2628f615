/** Whether a model computes what a config.json says. */
import {assertNone} from '../checkpoints/block';
import type {DecoderParts} from './decoder';
import type {LanguageModelConfig} from './language_model_config';

/** Asserts that the model has the layers and arguments of config. The experts are checked where they are written. */
export function assertSameModel(parts: DecoderParts, config: LanguageModelConfig, opName: string): void {
  const {embedding, embeddingScale, blocks, norm, head, logitsScale} = parts;
  const problems: string[] = [];
  const expect = (what: string, given: unknown, expected: unknown): void => {
    if (JSON.stringify(given) !== JSON.stringify(expected)) {
      problems.push(`${what}: expected ${JSON.stringify(expected)}, but the model has ${JSON.stringify(given)}`);
    }
  };
  const factorsOf = (layer: DecoderParts['embeddingScale']) => layer?.getConfig().factors;
  const scale = (factor: number) => (factor === 1 ? undefined : [factor]);
  expect('vocab_size', embedding.getConfig().vocabSize, config.vocabSize);
  expect('hidden_size', embedding.getConfig().units, config.hiddenSize);
  expect('tie_word_embeddings', head === embedding, config.isTied);
  expect('the factor of embeddings', factorsOf(embeddingScale), scale(config.embeddingFactor));
  expect('the factor of logits', factorsOf(logitsScale), scale(config.logitsFactor));
  expect('rms_norm_eps', norm.getConfig().epsilon, config.epsilon);
  expect('num_hidden_layers', blocks.length, config.blocks.length);
  config.blocks.slice(0, blocks.length).forEach(({attention, dense}, b) => {
    const {attentionNorm, attention: layer, attentionSum, feedForwardNorm, feedForward, feedForwardSum} = blocks[b];
    const given = layer.getConfig();
    for (const [name, value] of Object.entries(attention)) {
      expect(`${name} of layer ${b}`, given[name], value);
    }
    for (const each of [attentionNorm, feedForwardNorm]) {
      expect(`rms_norm_eps of layer ${b}`, each.getConfig().epsilon, config.epsilon);
    }
    for (const each of [attentionSum, feedForwardSum]) {
      expect(`the factor of residuals of layer ${b}`, factorsOf(each), [1, config.residualFactor]);
    }
    const gate = 'experts' in feedForward ? undefined : feedForward.gate.getConfig();
    expect(`the width of the dense layer ${b}`, gate?.units, dense?.width);
  });
  assertNone(problems, 'the model must be the one that config describes', opName);
}
