/** Reads values of a checkpoint's config.json, with checks. */
import {assert, describeValue} from '../arguments/checks';
import type {MoeActivation} from '../contract/kernel_names';

/** int32 is the widest index that tfjs has. */
export const MAX_SIZE = 2 ** 31 - 1;
export const MAX_EXPERTS = 2 ** 20;

/** The parsed config.json of a checkpoint. */
export type MoeModelConfig = Readonly<Record<string, unknown>>;

/** E, H and I of a block. */
export type Sizes = {numExperts: number; hiddenSize: number; intermediateSize: number};

export const isInteger = (value: unknown): value is number => Number.isSafeInteger(value);
const isFloat32 = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(Math.fround(value));

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
  /** `path` is how messages name the config: 'config', or 'config.text_config'. */
  constructor(
    private readonly config: MoeModelConfig,
    private readonly path: string,
    private readonly opName: string,
  ) {}

  has(key: string): boolean {
    return this.config[key] != null;
  }

  /** The one of two keys that config.json has; `key` if it has both or neither. */
  either(key: string, other: string): string {
    return !this.has(key) && this.has(other) ? other : key;
  }

  /** The config in `key`, such as the ffn_config of DBRX. */
  nested(key: string): ConfigReader {
    const isConfig = (value: unknown): value is MoeModelConfig => typeof value === 'object' && !Array.isArray(value);
    return new ConfigReader(this.checked(key, 'an object', isConfig), `${this.path}.${key}`, this.opName);
  }

  isNull(key: string): boolean {
    return this.config[key] === null;
  }

  /** Throws if config.json has a value other than null; `meaning` is what the value asks for. */
  absent(key: string, meaning: string): void {
    const value = this.config[key];
    assert(
      value == null,
      this.opName,
      () => `${this.path}.${key} must be null, because these ops have no ${meaning}, but is ${describeValue(value)}.`,
    );
  }

  /** A reader that reads one value from those of `keys` that are lists of equal values, one for each layer. */
  withoutLists(...keys: string[]): ConfigReader {
    const first = (value: unknown): unknown =>
      Array.isArray(value) && value.every((other) => other === value[0]) ? value[0] : value;
    const values = keys.filter((key) => this.has(key)).map((key) => [key, first(this.config[key])] as const);
    return new ConfigReader({...this.config, ...Object.fromEntries(values)}, this.path, this.opName);
  }

  /** The length of an axis of tensors. */
  size(key: string, byDefault?: number): number {
    return this.integer(key, 1, MAX_SIZE, undefined, byDefault);
  }

  /** As size, or null if the value is null or missing and has no default. */
  sizeOrNull(key: string, byDefault?: number): number | null {
    return this.isNull(key) || (byDefault == null && !this.has(key)) ? null : this.size(key, byDefault);
  }

  integer(key: string, min: number, max: number, maxIs = String(max), byDefault?: number): number {
    const fits = (value: unknown): value is number => isInteger(value) && value >= min && value <= max;
    return this.checked(key, `an integer from ${min} to ${maxIs}`, fits, byDefault);
  }

  /** How many there are, from 0; none if the value is null. */
  count(key: string, max: number, byDefault: number): number {
    return this.config[key] === null ? 0 : this.integer(key, 0, max, undefined, byDefault);
  }

  number(key: string, byDefault: number): number {
    return this.checked(key, 'a number that fits float32', isFloat32, byDefault);
  }

  positive(key: string, byDefault?: number): number {
    const fits = (value: unknown): value is number => isFloat32(value) && Math.fround(value) > 0;
    return this.checked(key, 'a positive number that fits float32', fits, byDefault);
  }

  boolean(key: string, byDefault: boolean): boolean {
    return this.checked(key, 'a boolean', (value): value is boolean => typeof value === 'boolean', byDefault);
  }

  /** A list of `length` values that fit, or of any number of them. */
  list<Value>(key: string, expected: string, fits: (value: unknown) => value is Value, length?: number): Value[] {
    const isList = (value: unknown): value is Value[] =>
      Array.isArray(value) && (length == null || value.length === length) && value.every(fits);
    return this.checked(key, `a list of ${length == null ? '' : `${length} values, each `}${expected}`, isList);
  }

  numExperts(key: string): number {
    return this.integer(key, 1, MAX_EXPERTS);
  }

  sizes(numExpertsKey: string, intermediateSizeKey: string): Sizes {
    return {
      numExperts: this.numExperts(numExpertsKey),
      hiddenSize: this.size('hidden_size'),
      intermediateSize: this.size(intermediateSizeKey),
    };
  }

  topk({numExperts}: Pick<Sizes, 'numExperts'>, key = 'num_experts_per_tok'): number {
    return this.integer(key, 1, numExperts, `the number of experts (${numExperts})`);
  }

  activation(key = 'hidden_act', byDefault = 'silu'): MoeActivation {
    const known = Object.keys(activations);
    const isKnown = (value: unknown): value is string => typeof value === 'string' && known.includes(value);
    return activations[this.checked(key, `one of ${known.join(', ')}`, isKnown, byDefault)];
  }

  /** One of the values that this package supports; the first is the default. */
  only<Value extends string | boolean | number>(key: string, values: readonly Value[]): Value {
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
    assert(fits(value), this.opName, () => `${this.path}.${key} must be ${expected}, but is ${describeValue(value)}.`);
    return value as Value;
  }
}
