/** Language models of real sizes that decode, with random weights: tokens a second, launches and host time a token. */
import type {LayersModel} from '@tensorflow/tfjs-layers';
import type {MoeModelConfig} from '../src/checkpoints/config_reader';
import {generate} from '../src/models/generate';
import * as tf from '../src/tf';
import {CoreOpsModel} from './decoding_core_ops';
import {currentDevice, endedByDeviceErrors} from './device';
import {formatTable, threeDigits} from './harness';

const common = {hidden_act: 'silu', rope_theta: 10_000, attention_bias: false};

/** config.json of the models, as far as speed depends on it. */
export const decodingModels: Record<string, MoeModelConfig> = {
  // Granite-3.0-1B-A400M
  granite: {
    ...common,
    model_type: 'granitemoe',
    hidden_size: 1024,
    intermediate_size: 512,
    num_hidden_layers: 24,
    num_attention_heads: 16,
    num_key_value_heads: 8,
    num_local_experts: 32,
    num_experts_per_tok: 8,
    vocab_size: 49_155,
    rms_norm_eps: 1e-6,
    embedding_multiplier: 12,
    attention_multiplier: 0.015625,
    residual_multiplier: 0.22,
    logits_scaling: 6,
    tie_word_embeddings: true,
  },
  // OLMoE-1B-7B
  olmoe: {
    ...common,
    model_type: 'olmoe',
    hidden_size: 2048,
    intermediate_size: 1024,
    num_hidden_layers: 16,
    num_attention_heads: 16,
    num_key_value_heads: 16,
    num_experts: 64,
    num_experts_per_tok: 8,
    norm_topk_prob: false,
    vocab_size: 50_304,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: false,
  },
};

const PROMPT_LENGTH = 128;
const CAPACITY = 512;

export type DecodingRow = {
  model: string;
  experts: string;
  numTokens: number;
  /** Of whole calls of generate, the prompt taken off. */
  tokensPerSecond: number;
  millisecondsPerToken: {minimum: number; median: number; maximum: number};
  /** JavaScript from one token to the next, without the wait for the token. */
  hostMilliseconds: number;
  promptMilliseconds: number;
  /** On webgpu. */
  launchesPerToken: number | undefined;
  megabytes: number;
  /** The same in core ops, without a prompt: as many positions are in its cache. */
  coreOps: {tokensPerSecond: number; launchesPerToken: number | undefined; megabytes: number} | undefined;
};

export type DecodingOptions = {
  models: string[];
  numTokens: number;
  numRuns: number;
  hasBaselines: boolean;
  resetBackend: () => Promise<void>;
};

/** Two float16s of 0.002 in a word. */
const TWO_SCALES = 0x18191819;

/** Random codes, and scales and kernels of a size that keeps numbers in range. */
function setRandomWeights(model: LayersModel): void {
  for (const layer of model.layers) {
    const values = layer.weights.map(({originalName, shape}) => {
      const size = tf.util.sizeFromShape(shape as number[]);
      if (originalName.endsWith('_codes')) {
        const words = Int32Array.from({length: size}, (_, i) => Math.imul(i + 1, 0x9e3779b1));
        return tf.tensor(words, shape as number[], 'int32');
      }
      return originalName.endsWith('_scales') ? tf.fill(shape as number[], TWO_SCALES, 'int32') : undefined;
    });
    if (values.some((value) => value != null)) {
      const given = layer.getWeights();
      layer.setWeights(values.map((value, w) => value ?? given[w]));
      tf.dispose(values.filter((value) => value != null));
    }
  }
}

/** Counts the launches of every compute pass until the result is called. */
function countLaunches(): () => number {
  let count = 0;
  const {prototype} = GPUComputePassEncoder;
  const {dispatchWorkgroups} = prototype;
  prototype.dispatchWorkgroups = function (this: GPUComputePassEncoder, ...sizes) {
    count++;
    return dispatchWorkgroups.apply(this, sizes);
  };
  return () => {
    prototype.dispatchWorkgroups = dispatchWorkgroups;
    return count;
  };
}

async function timeModel(name: string, numTokens: number, numRuns: number): Promise<Omit<DecodingRow, 'coreOps'>> {
  const model = tf.moeLanguageModel(decodingModels[name], {
    expertFormat: 'int4',
    expertScaleFormat: 'float16',
  });
  try {
    setRandomWeights(model);
    const prompt = Array.from({length: PROMPT_LENGTH}, (_, i) => (i * 7919) % 40_000);
    const options = {capacity: CAPACITY};
    // Shaders are compiled in the first calls.
    await generate(model, prompt, {...options, maxNewTokens: 8});
    const times: number[] = [];
    let promptMilliseconds = Infinity;
    for (let run = 0; run < numRuns; run++) {
      const arrivals: number[] = [];
      const start = performance.now();
      await generate(model, prompt, {
        ...options,
        maxNewTokens: numTokens + 1,
        onToken: () => arrivals.push(performance.now()),
      });
      promptMilliseconds = Math.min(promptMilliseconds, arrivals[0] - start);
      times.push((arrivals[numTokens] - arrivals[0]) / numTokens);
    }
    let launchesPerToken: number | undefined;
    if (currentDevice() != null) {
      const launchesOf = async (maxNewTokens: number) => {
        const counted = countLaunches();
        await generate(model, prompt, {...options, maxNewTokens});
        return counted();
      };
      launchesPerToken = (await launchesOf(9)) - (await launchesOf(8));
    }
    const sorted = times.sort((a, b) => a - b);
    const median = sorted[sorted.length >> 1];
    return {
      model: name,
      experts: 'int4, float16 scales',
      numTokens,
      tokensPerSecond: 1000 / median,
      millisecondsPerToken: {minimum: sorted[0], median, maximum: sorted[sorted.length - 1]},
      hostMilliseconds: await hostMilliseconds(model, prompt),
      promptMilliseconds,
      launchesPerToken,
      megabytes: tf.memory().numBytes / 1e6,
    };
  } finally {
    model.dispose();
  }
}

async function timeCoreOps(name: string, numTokens: number, numRuns: number): Promise<DecodingRow['coreOps']> {
  const model = new CoreOpsModel(decodingModels[name], PROMPT_LENGTH);
  try {
    const {numBytes} = tf.memory();
    const tokens = async (count: number) => {
      for (let token = 0; token < count; token++) {
        const chosen = model.next(token);
        await chosen.data();
        chosen.dispose();
      }
    };
    await tokens(8);
    const times: number[] = [];
    for (let run = 0; run < numRuns; run++) {
      const start = performance.now();
      await tokens(numTokens);
      times.push((performance.now() - start) / numTokens);
    }
    let launchesPerToken: number | undefined;
    if (currentDevice() != null) {
      const counted = countLaunches();
      await tokens(1);
      launchesPerToken = counted();
    }
    const sorted = times.sort((a, b) => a - b);
    return {tokensPerSecond: 1000 / sorted[sorted.length >> 1], launchesPerToken, megabytes: numBytes / 1e6};
  } finally {
    model.dispose();
  }
}

/** The time in which JavaScript asks for a token: the step runs until its first wait, which is for the token. */
async function hostMilliseconds(model: LayersModel, prompt: number[]): Promise<number> {
  const times: number[] = [];
  let tokenAt = 0;
  const data = tf.Tensor.prototype.data;
  tf.Tensor.prototype.data = function (this: tf.Tensor) {
    if (tokenAt > 0) {
      times.push(performance.now() - tokenAt);
    }
    return data.call(this) as never;
  };
  try {
    const onToken = () => {
      tokenAt = performance.now();
    };
    await generate(model, prompt, {capacity: CAPACITY, maxNewTokens: 33, onToken});
  } finally {
    tf.Tensor.prototype.data = data;
  }
  return times.sort((a, b) => a - b)[times.length >> 1];
}

export async function timeDecoding(
  {models, numTokens, numRuns, hasBaselines, resetBackend}: DecodingOptions,
  print: (line: string) => void,
): Promise<DecodingRow[]> {
  const rows: DecodingRow[] = [];
  for (const name of models) {
    await resetBackend();
    const row = await endedByDeviceErrors(() => timeModel(name, numTokens, numRuns));
    await resetBackend();
    const coreOps = hasBaselines ? await endedByDeviceErrors(() => timeCoreOps(name, numTokens, numRuns)) : undefined;
    rows.push({...row, coreOps});
  }
  const header = [
    'model',
    'tokens/s',
    'ms a token',
    'host ms',
    'launches',
    `prompt of ${PROMPT_LENGTH}, ms`,
    'MB of tensors',
    'core ops: tokens/s',
    'launches',
    'MB',
  ];
  const lines = rows.map((row) => [
    row.model,
    threeDigits(row.tokensPerSecond),
    threeDigits(row.millisecondsPerToken.median),
    threeDigits(row.hostMilliseconds),
    String(row.launchesPerToken ?? '–'),
    threeDigits(row.promptMilliseconds),
    row.megabytes.toFixed(0),
    row.coreOps == null ? '–' : threeDigits(row.coreOps.tokensPerSecond),
    String(row.coreOps?.launchesPerToken ?? '–'),
    row.coreOps?.megabytes.toFixed(0) ?? '–',
  ]);
  print(formatTable([header, ...lines]));
  return rows;
}
