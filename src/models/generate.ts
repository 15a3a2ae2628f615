/** Text from language models, token by token. */
import {tensor2d, type Tensor2D, tidy} from '@tensorflow/tfjs-core';
import type {LayersModel} from '@tensorflow/tfjs-layers';
import {assert, assertPositiveInteger, checkOptions, describeValue} from '../arguments/checks';
import {assertModel, partsOf} from './decoder';
import {Decoding} from './decoding';
import {type Sampler, sampler, samplingOptionNames, type SamplingOptions} from './sampling';

export type GenerateOptions = SamplingOptions & {
  /** The number of tokens after which a sequence ends. */
  maxNewTokens: number;
  /** A sequence ends before any of these. */
  stopTokenIds?: readonly number[] | null;
  /**
   * The number of positions for which memory is taken at the beginning: at least those of the prompt and of all new
   * tokens but the last. One capacity for many calls spares a GPU new shaders. Default: as many as needed.
   */
  capacity?: number | null;
  /**
   * Called with each new token, and the number of its sequence. The next token waits for a promise that it returns: on
   * cpu nothing else lets a page or a worker hear of its events meanwhile.
   */
  onToken?: ((tokenId: number, sequence: number) => unknown) | null;
  /** Calls the generation off. The promise is rejected with its reason, and no tensor stays. */
  signal?: AbortSignal | null;
};

const optionNames = ['maxNewTokens', 'stopTokenIds', 'capacity', 'onToken', 'signal', ...samplingOptionNames] as const;

const opName = 'generate';

export async function generate(model: LayersModel, ids: readonly number[], options: GenerateOptions): Promise<number[]>;
export async function generate(
  model: LayersModel,
  ids: ReadonlyArray<readonly number[]>,
  options: GenerateOptions,
): Promise<number[][]>;
export async function generate(
  model: LayersModel,
  ids: readonly number[] | ReadonlyArray<readonly number[]>,
  options: GenerateOptions,
): Promise<number[] | number[][]> {
  const {maxNewTokens, stopTokenIds, capacity, onToken, signal, ...sampling} = checkOptions(
    options,
    optionNames,
    opName,
  );
  assertPositiveInteger(maxNewTokens!, 'maxNewTokens', opName);
  assert(
    onToken == null || typeof onToken === 'function',
    opName,
    () => `onToken must be a function, but is ${describeValue(onToken)}.`,
  );
  assert(
    signal == null || typeof signal.throwIfAborted === 'function',
    opName,
    () => `signal must be an AbortSignal, but is ${describeValue(signal)}.`,
  );
  assertModel(model, opName);
  const parts = partsOf(model, opName);
  const vocabSize = parts.embedding.getConfig().vocabSize as number;
  const isOne = !Array.isArray((ids as readonly unknown[] | null | undefined)?.[0]);
  const prompts = (isOne ? [ids] : ids) as ReadonlyArray<readonly number[]>;
  assertPrompts(prompts, vocabSize, isOne);
  const stops = checkStops(stopTokenIds, vocabSize);
  const sample = sampler(sampling, opName);
  const numPositions = Math.max(...prompts.map(({length}) => length)) + maxNewTokens! - 1;
  if (capacity != null) {
    assertPositiveInteger(capacity, 'capacity', opName);
    assert(
      capacity >= numPositions,
      opName,
      () => `capacity must be at least ${numPositions}, for the prompt and maxNewTokens, but is ${capacity}.`,
    );
  }
  signal?.throwIfAborted();
  const decoding = new Decoding(parts, prompts.length, capacity ?? numPositions);
  try {
    const sequences = await decode(decoding, prompts, sample, {maxNewTokens: maxNewTokens!, stops, onToken, signal});
    return isOne ? sequences[0] : sequences;
  } finally {
    decoding.dispose();
  }
}

function assertPrompts(prompts: ReadonlyArray<readonly number[]>, vocabSize: number, isOne: boolean): void {
  prompts.forEach((prompt, p) => {
    const name = isOne ? 'ids' : `ids[${p}]`;
    assert(
      Array.isArray(prompt) && prompt.length > 0,
      opName,
      () => `${name} must be an array of at least one token id, but is ${describeValue(prompt)}.`,
    );
    prompt.forEach((id, i) => assertId(id, `${name}[${i}]`, vocabSize));
  });
}

function assertId(id: number, name: string, vocabSize: number): void {
  assert(
    Number.isInteger(id) && id >= 0 && id < vocabSize,
    opName,
    () => `${name} must be a token id from 0 to ${vocabSize - 1}, but is ${describeValue(id)}.`,
  );
}

function checkStops(stopTokenIds: readonly number[] | null | undefined, vocabSize: number): ReadonlySet<number> {
  assert(
    stopTokenIds == null || Array.isArray(stopTokenIds),
    opName,
    () => `stopTokenIds must be an array of token ids, but is ${describeValue(stopTokenIds)}.`,
  );
  stopTokenIds?.forEach((id, i) => assertId(id, `stopTokenIds[${i}]`, vocabSize));
  return new Set(stopTokenIds);
}

type Loop = {maxNewTokens: number; stops: ReadonlySet<number>} & Pick<GenerateOptions, 'onToken' | 'signal'>;

/** The new tokens of each sequence. */
async function decode(
  decoding: Decoding,
  prompts: ReadonlyArray<readonly number[]>,
  sample: Sampler,
  {maxNewTokens, stops, onToken, signal}: Loop,
): Promise<number[][]> {
  const sequences: number[][] = prompts.map(() => []);
  const isOpen = prompts.map(() => true);
  let logits = tidy(() => decoding.read(...padded(prompts)));
  for (;;) {
    const ids = await sample(logits).finally(() => logits.dispose());
    signal?.throwIfAborted();
    const heard: unknown[] = [];
    ids.forEach((id, s) => {
      isOpen[s] &&= !stops.has(id);
      if (isOpen[s]) {
        sequences[s].push(id);
        heard.push(onToken?.(id, s));
        isOpen[s] = sequences[s].length < maxNewTokens;
      }
    });
    await Promise.all(heard);
    signal?.throwIfAborted();
    if (!isOpen.some(Boolean)) {
      return sequences;
    }
    logits = decoding.next(ids);
  }
}

/** The prompts with padding before the shorter ones, and its mask. Attention sees the distance of positions alone. */
function padded(prompts: ReadonlyArray<readonly number[]>): [ids: Tensor2D, mask: Tensor2D | undefined] {
  const longest = Math.max(...prompts.map(({length}) => length));
  const rows = (padding: (prompt: readonly number[]) => number[], values: (prompt: readonly number[]) => number[]) =>
    prompts.map((prompt) => [...padding(prompt), ...values(prompt)]);
  const zeros = ({length}: readonly number[]) => new Array<number>(longest - length).fill(0);
  const ids = tensor2d(
    rows(zeros, (prompt) => [...prompt]),
    undefined,
    'int32',
  );
  const hasPadding = prompts.some(({length}) => length < longest);
  return [ids, hasPadding ? tensor2d(rows(zeros, (prompt) => prompt.map(() => 1))) : undefined];
}
