/** What config.json says of quantized weights. */
import {assert, describeValue, shorten} from '../../arguments/checks';
import type {MoeModelConfig} from '../config_reader';

/** The methods whose files can be read. */
const methods = ['mxfp4', 'fp8', 'compressed-tensors', 'gptq', 'awq'] as const;

type Fields = Readonly<Record<string, unknown>>;

const fieldsOf = (value: unknown): Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};

/** config.quantization_config, which multimodal models may have in text_config. */
const givenIn = (config: MoeModelConfig): unknown =>
  config['quantization_config'] ?? fieldsOf(config['text_config'])['quantization_config'];

/** What is given, or no fields. */
export const quantizationOf = (config: MoeModelConfig): Fields => fieldsOf(givenIn(config));

export const hasMethod = (config: MoeModelConfig, method: (typeof methods)[number]): boolean =>
  quantizationOf(config)['quant_method'] === method;

/** Why experts may be in no format that can be read. */
export function whyFormatIsUnknown(config: MoeModelConfig): string[] {
  const {quant_method: method} = quantizationOf(config);
  return givenIn(config) == null || methods.some((known) => known === method)
    ? []
    : [
        `config.quantization_config.quant_method is ${shorten(describeValue(method))}. Files of ${methods.join(', ')} ` +
          'can be read, and those that are not quantized.',
      ];
}

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;

/** One of the values that a reader knows, the first by default. */
export function oneOf<Value>(config: MoeModelConfig, key: string, values: readonly Value[], opName: string): Value {
  const value = quantizationOf(config)[key] ?? values[0];
  assert(
    values.some((known) => known === value),
    opName,
    () => `config.quantization_config.${key} must be ${values.join(' or ')}, but is ${describeValue(value)}.`,
  );
  return value as Value;
}

/** How many inputs share a scale: config.quantization_config.group_size, of which -1 means all. */
export function groupSizeOf(config: MoeModelConfig, numIn: number, opName: string): number {
  const {group_size: size} = quantizationOf(config);
  assert(
    isSize(size) || size === -1,
    opName,
    () => `config.quantization_config.group_size must be a positive integer or -1, but is ${describeValue(size)}.`,
  );
  return size === -1 ? numIn : Math.min(size as number, numIn);
}

/** [rows, inputs] that share a scale: config.quantization_config.weight_block_size. */
export function blockSizeOf(config: MoeModelConfig, opName: string): [rows: number, inputs: number] {
  const size = quantizationOf(config)['weight_block_size'] ?? [128, 128];
  assert(
    isBlock(size),
    opName,
    () => `config.quantization_config.weight_block_size must be two positive integers, but is ${describeValue(size)}.`,
  );
  return size as [number, number];
}

const isBlock = (value: unknown): value is [number, number] =>
  Array.isArray(value) && value.length === 2 && value.every(isSize);

/** The sizes of groups and of blocks [rows, inputs] in config.quantization_config.config_groups. */
export function configGroups(config: MoeModelConfig): {groupSizes: number[]; blocks: Array<[number, number]>} {
  const weights = Object.values(fieldsOf(quantizationOf(config)['config_groups'])).map((group) =>
    fieldsOf(fieldsOf(group)['weights']),
  );
  return {
    groupSizes: weights.map((each) => each['group_size']).filter(isSize),
    blocks: weights.map((each) => each['block_structure']).filter(isBlock),
  };
}
