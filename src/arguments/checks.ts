/**
 * The checks of arguments that all ops share. An error is one sentence with the op, the argument, what was expected and
 * what was given.
 */
import {Tensor, tensor, type TensorLike, type TypedArray, util, Variable} from '@tensorflow/tfjs-core';

type CheckedDtype = 'float32' | 'int32' | 'bool';

const MAX_INT32 = 2 ** 31 - 1;
const MIN_INT32 = -(2 ** 31);

export function assert(condition: boolean, opName: string, message: () => string): void {
  util.assert(condition, () => `Error in ${opName}: ${message()}`);
}

/**
 * A value as messages show it, on one short line. Its type is added if its text alone would mislead.
 */
export function describeValue(value: unknown): string {
  if (value instanceof Tensor) {
    return `${withArticle(value.dtype)} tensor [${value.shape}]`;
  }
  if (util.isTypedArray(value as TypedArray)) {
    return `${withArticle(classOf(value))} of ${(value as TypedArray).length} values`;
  }
  if (typeof value === 'string') {
    return `the string ${quote(value)}`;
  }
  if (typeof value === 'bigint') {
    return `the bigint ${shorten(String(value))}`;
  }
  if (Array.isArray(value)) {
    return `the array ${show(value)}`;
  }
  return isPlainObject(value) ? `the object ${show(value)}` : show(value);
}

const MAX_SHOWN_LENGTH = 60;
const MAX_SHOWN_ELEMENTS = 8;

export const shorten = (text: string, maxLength = MAX_SHOWN_LENGTH): string =>
  text.length > maxLength ? `${text.slice(0, maxLength)}…` : text;
const quote = (text: string) => `'${shorten(text)}'`;
const withArticle = (name: string) => `${/^[aeio]/i.test(name) ? 'an' : 'a'} ${name}`;

/** The text of a value. Objects and arrays that are nested two deep appear without their contents. */
function show(value: unknown, depth = 0): string {
  if (typeof value === 'string') {
    return quote(value);
  }
  const isList = Array.isArray(value);
  if (isList || isPlainObject(value)) {
    const [open, close] = isList ? '[]' : '{}';
    const entries = Object.entries(value);
    const shown = depth < 2 ? entries.slice(0, MAX_SHOWN_ELEMENTS) : [];
    const texts = shown.map(([name, element]) => `${isList ? '' : `${shorten(name)}: `}${show(element, depth + 1)}`);
    return `${open}${[...texts, ...(shown.length < entries.length ? ['…'] : [])].join(', ')}${close}`;
  }
  const hasText = value == null || typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint';
  return hasText ? String(value) : withArticle(classOf(value));
}

export function isPlainObject(value: unknown): value is object {
  if (typeof value !== 'object' || value === null) {
    return false;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** 'Function', 'Map', 'Symbol' …: an object can have anything under the name `constructor`. */
function classOf(value: unknown): string {
  const {constructor} = value as {constructor?: unknown};
  return typeof constructor === 'function' && constructor.name !== '' ? constructor.name : 'Object';
}

/** Asserts that the value is one of the allowed names, and returns it. */
export function checkOneOf<Value extends string>(
  value: Value,
  allowed: readonly Value[],
  argName: string,
  opName: string,
): Value {
  assert(allowed.includes(value), opName, () => {
    const names = allowed.length > 2 ? `one of ${allowed.join(', ')}` : allowed.map(quote).join(' or ');
    return `${argName} must be ${names}, but is ${typeof value === 'string' ? quote(value) : describeValue(value)}.`;
  });
  return value;
}

/**
 * The argument as a tensor of one of `dtypes`. Arrays become a tensor, and nothing is rounded, truncated or guessed on
 * the way.
 */
export function convertToTensor(
  x: Tensor | TensorLike,
  argName: string,
  opName: string,
  dtypes: readonly CheckedDtype[],
): Tensor {
  if (x instanceof Tensor) {
    assert(!x.isDisposed, opName, () => `${argName} is disposed.`);
    assertDtype(x.dtype, argName, opName, dtypes);
    return x;
  }
  if (typeof x !== 'number' && typeof x !== 'boolean' && typeof x !== 'string' && !isArray(x)) {
    const given = x == null ? 'null' : classOf(x);
    throw new Error(`Argument '${argName}' passed to '${opName}' must be a Tensor or TensorLike, but got '${given}'`);
  }

  const shape: number[] = [];
  let leaf: unknown = x;
  let leafHolder: unknown = x;
  while (isArray(leaf)) {
    shape.push(leaf.length);
    leafHolder = leaf;
    leaf = leaf[0];
  }
  const isTypedArray = util.isTypedArray(leafHolder as TypedArray);
  // Numbers in plain arrays have no dtype of their own: they take the dtype that the argument asks for.
  const dtype =
    !isTypedArray && (leaf === undefined || typeof leaf === 'number')
      ? dtypes[0]
      : util.inferDtype(leafHolder as TensorLike);
  const target = dtype === 'int32' && !dtypes.includes('int32') ? 'float32' : dtype;
  assertDtype(target, argName, opName, dtypes);
  assertRectangular(x, shape, argName, opName);
  if (util.isTypedArray(x)) {
    return tensor(target === 'int32' ? Int32Array.from(x) : Float32Array.from(x), shape, target as CheckedDtype);
  }
  const values = util.flatten(x as unknown as number[]);
  for (const value of values) {
    const fits =
      target === 'bool'
        ? typeof value === 'boolean'
        : typeof value === 'number' &&
          (target === 'float32' || (Number.isInteger(value) && value >= MIN_INT32 && value <= MAX_INT32));
    const wanted = {float32: 'numbers', int32: 'integers that fit int32', bool: 'booleans'}[target as CheckedDtype];
    assert(fits, opName, () => `${argName} must hold ${wanted}, but has ${describeValue(value)}.`);
  }
  return tensor(values, shape, target as CheckedDtype);
}

/** An optional tensor argument. Both undefined and null mean that it is not given. */
export function convertToOptionalTensor(
  x: Tensor | TensorLike | null | undefined,
  argName: string,
  opName: string,
  dtypes: readonly CheckedDtype[],
): Tensor | undefined {
  return x == null ? undefined : convertToTensor(x, argName, opName, dtypes);
}

function isArray(x: unknown): x is ArrayLike<unknown> {
  return Array.isArray(x) || util.isTypedArray(x as TypedArray);
}

function assertDtype(dtype: string, argName: string, opName: string, dtypes: readonly string[]): void {
  if (!dtypes.includes(dtype)) {
    throw new Error(
      `Argument '${argName}' passed to '${opName}' must be ${dtypes.join(' or ')} tensor, but got ${dtype} tensor`,
    );
  }
}

function assertRectangular(x: unknown, shape: number[], argName: string, opName: string): void {
  const [length, ...elementShape] = shape;
  if (isArray(x)) {
    assert(
      x.length === length,
      opName,
      () => `${argName} must be rectangular, but has rows of ${length ?? 0} and of ${x.length} elements.`,
    );
    if (!util.isTypedArray(x as TypedArray)) {
      for (let i = 0; i < x.length; i++) {
        assertRectangular(x[i], elementShape, argName, opName);
      }
    }
  } else {
    assert(
      shape.length === 0,
      opName,
      () => `${argName} must be rectangular, but has ${describeValue(x)} in place of a row.`,
    );
  }
}

/** Asserts the rank. `axes` names the axes, such as '[T, H]', and `remedy` says what to do. */
export function assertRank(x: Tensor, argName: string, opName: string, axes: string, remedy = ''): void {
  const rank = axes.split(',').length;
  assert(
    x.rank === rank,
    opName,
    () => `${argName} must be rank ${rank} ${axes}, but got rank ${x.rank} [${x.shape}].${remedy && ` ${remedy}`}`,
  );
}

export function assertPositiveInteger(value: number, argName: string, opName: string): void {
  assert(
    Number.isInteger(value) && value >= 1 && value <= MAX_INT32,
    opName,
    () => `${argName} must be a positive integer, but is ${describeValue(value)}.`,
  );
}

/** A number of things of which there may be none. */
export function checkCount(value: number, argName: string, opName: string): number {
  assert(
    Number.isInteger(value) && value >= 0,
    opName,
    () => `${argName} must be an integer of at least 0, but is ${describeValue(value)}.`,
  );
  assertFitsInt32(value, argName, opName);
  return value;
}

/**
 * A million, more than any model has. The time and memory of ops grow with the number of experts alone, also for few
 * tokens.
 */
export const MAX_EXPERTS = 2 ** 20;

/** Asserts that a number of experts is one that ops accept; `argName` says what the number counts. */
export function assertNumExperts(value: number, argName: string, opName: string): void {
  assertPositiveInteger(value, argName, opName);
  assert(value <= MAX_EXPERTS, opName, () => `${argName} must be at most ${MAX_EXPERTS}, but is ${value}.`);
}

export function assertInt32(value: number, argName: string, opName: string): void {
  assert(
    Number.isInteger(value) && value >= MIN_INT32 && value <= MAX_INT32,
    opName,
    () => `${argName} must be an integer that fits int32, but is ${describeValue(value)}.`,
  );
}

/** Asserts that `count`, described by `what`, can index rows: int32 is the widest index that tfjs has. */
export function assertFitsInt32(count: number, what: string, opName: string): void {
  assert(count <= MAX_INT32, opName, () => `${what} must be at most ${MAX_INT32}, but is ${count}.`);
}

/**
 * Checks an options object, which may be nested in the options. An unknown name is an error that lists the known names.
 */
export function checkOptions<Options extends object>(
  options: Options | null | undefined,
  known: ReadonlyArray<keyof Options & string>,
  opName: string,
  /** The name of the option that holds these options, if they are nested. */
  ofOption?: string,
): Partial<Options> {
  if (options == null) {
    return {};
  }
  assert(
    typeof options === 'object' && !Array.isArray(options) && !(options instanceof Tensor),
    opName,
    () =>
      `${ofOption ?? 'options'} must be an object with any of ${known.join(', ')}, but is ${describeValue(options)}.`,
  );
  for (const name of Object.keys(options)) {
    assert(
      known.some((knownName) => knownName === name),
      opName,
      () =>
        ofOption == null
          ? `unknown option ${quote(name)}. The options are ${known.join(', ')}.`
          : `unknown option ${quote(`${ofOption}.${name}`)}. The options of ${ofOption} are ${known.join(', ')}.`,
    );
  }
  return options;
}

/**
 * The options together with an argument that a caller passes either before the options or among them. Options may also
 * be passed in the argument's place, so that no null is needed before them.
 */
export function mergeIntoOptions<Options extends object, Name extends keyof Options & string>(
  argument: Options[Name] | Options | null | undefined,
  name: Name,
  options: Options | null | undefined,
  known: ReadonlyArray<keyof Options & string>,
  opName: string,
): Partial<Options> {
  if (isPlainObject(argument)) {
    assert(
      options == null,
      opName,
      () => `options must be given once, but are both the last argument and in the place of ${name}.`,
    );
    return checkOptions(argument as Options, known, opName);
  }
  const given = checkOptions(options, known, opName);
  assert(
    argument == null || given[name] == null,
    opName,
    () => `${name} must be given once, but is both an argument and among the options.`,
  );
  return argument == null ? given : {...given, [name]: argument};
}

export function checkBoolean(value: boolean | null | undefined, argName: string, opName: string): boolean {
  assert(
    value == null || typeof value === 'boolean',
    opName,
    () => `${argName} must be a boolean, but is ${describeValue(value)}.`,
  );
  return value ?? false;
}

/** Asserts, before any work, that the variable `out` can take a result of this shape and dtype. */
export function assertOut(out: Variable | null | undefined, shape: number[], dtype: string, opName: string): void {
  if (out == null) {
    return;
  }
  assert(out instanceof Variable, opName, () => `out must be a tf.Variable, but is ${describeValue(out)}.`);
  assert(!out.isDisposed, opName, () => 'out is disposed.');
  assert(
    out.dtype === dtype && util.arraysEqual(out.shape, shape),
    opName,
    () => `out must be ${dtype} [${shape}] like the result, but is ${out.dtype} [${out.shape}].`,
  );
}
