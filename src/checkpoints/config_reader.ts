/** Reads values of a checkpoint's config.json, with checks. */
import {assert, describeValue} from '../arguments/checks';
import type {MoeActivation} from '../contract/kernel_names';

/** int32 is the widest index that tfjs has. */
export const MAX_SIZE = 2 ** 31 - 1;
const MAX_EXPERTS = 2 ** 20;

/** The parsed config.json of a checkpoint. */
export type MoeModelConfig = Readonly<Record<string, unknown>>;

/** E, H and I of a block. */
export type Sizes = {numExperts: number; hiddenSize: number; intermediateSize: number};

export const isInteger = (value: unknown): value is number => Number.isSafeInteger(value);
/** Activations of transformers, and their names in this package. */
export const activations: {[hiddenAct: string]: MoeActivation} = {
  silu: 'silu',
  swish: 'silu',
  relu: 'relu',
  relu2: 'relu2',
  gelu: 'gelu',
  gelu_new: 'geluTanh',
  gelu_pytorch_tanh: 'geluTanh',
};

/** Checked values of config.json. A missing value is the default of transformers, if a default is given. */
export class ConfigReader {
  constructor(
    private readonly config: MoeModelConfig,
    private readonly opName: string,
  ) {}

  has(key: string): boolean {
    return this.config[key] != null;
  }

  /** The one of two keys that config.json has; `key` if it has both or neither. */
  either(key: string, other: string): string {
    return !this.has(key) && this.has(other) ? other : key;
  }

  /** The length of an axis of tensors. */
  size(key: string): number {
    return this.integer(key, 1, MAX_SIZE);
  }

  integer(key: string, min: number, max: number, maxIs = String(max)): number {
    const fits = (value: unknown): value is number => isInteger(value) && value >= min && value <= max;
    return this.checked(key, `an integer from ${min} to ${maxIs}`, fits);
  }

  number(key: string, byDefault: number): number {
    const fits = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(Math.fround(value));
    return this.checked(key, 'a number that fits float32', fits, byDefault);
  }

  boolean(key: string, byDefault: boolean): boolean {
    return this.checked(key, 'a boolean', (value): value is boolean => typeof value === 'boolean', byDefault);
  }

  sizes(numExpertsKey: string, intermediateSizeKey: string): Sizes {
    return {
      numExperts: this.integer(numExpertsKey, 1, MAX_EXPERTS),
      hiddenSize: this.size('hidden_size'),
      intermediateSize: this.size(intermediateSizeKey),
    };
  }

  topk({numExperts}: Sizes): number {
    return this.integer('num_experts_per_tok', 1, numExperts, `the number of experts (${numExperts})`);
  }

  activation(): MoeActivation {
    const known = Object.keys(activations);
    const isKnown = (value: unknown): value is string => typeof value === 'string' && known.includes(value);
    return activations[this.checked('hidden_act', `one of ${known.join(', ')}`, isKnown, 'silu')];
  }

  /** One of the values that this package supports; the first is the default. */
  only<Value extends string | boolean>(key: string, values: readonly Value[]): Value {
    const quoted = values.map((value) => (typeof value === 'string' ? `'${value}'` : value)).join(' or ');
    const isKnown = (value: unknown): value is Value => values.some((known) => known === value);
    return this.checked(key, quoted, isKnown, values[0]);
  }

  private checked<Value>(
    key: string,
    expected: string,
    fits: (value: unknown) => value is Value,
    byDefault?: Value,
  ): Value {
    const value = this.config[key] ?? byDefault;
    assert(fits(value), this.opName, () => `config.${key} must be ${expected}, but is ${describeValue(value)}.`);
    return value as Value;
  }
}
