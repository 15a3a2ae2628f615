/** The types of the attrs of a node in a GraphModel: how a value is read from one, and written into one. */

/** An attr in the JSON of a graph; a string is in base64. */
export type AttrJson = {i: string} | {f: number} | {b: boolean} | {s: string};

export type AttrType<Value> = {
  expected: string;
  /** The value of an attr as tfjs decoded it; undefined if the value has another type. */
  read(decoded: unknown): Value | undefined;
  write(value: Value): AttrJson;
};

export type AttrTypes = {[name: string]: AttrType<unknown>};
export type AttrValues<Types extends AttrTypes> = {
  [Name in keyof Types]: Types[Name] extends AttrType<infer Value> ? Value : never;
};

export const integer: AttrType<number> = {
  expected: 'an integer',
  read: (decoded) => (Number.isInteger(decoded) ? (decoded as number) : undefined),
  write: (value) => ({i: String(value)}),
};

export const number: AttrType<number> = {
  expected: 'a number',
  read: (decoded) => (typeof decoded === 'number' && !Number.isNaN(decoded) ? decoded : undefined),
  write: (value) => ({f: value}),
};

export const boolean: AttrType<boolean> = {
  expected: 'a boolean',
  read: (decoded) => (typeof decoded === 'boolean' ? decoded : undefined),
  write: (value) => ({b: value}),
};

/** One of an option's values in snake_case, because tfjs lower-cases the strings of graphs. */
export const oneOf = <Value extends string>(values: readonly Value[]): AttrType<Value> => ({
  expected: `one of ${values.map(toSnakeCase).join(', ')}`,
  read: (decoded) => values.find((value) => toSnakeCase(value) === decoded),
  write: (value) => ({s: btoa(toSnakeCase(value))}),
});

/** 'numExperts' is 'num_experts' in a graph. */
export function toSnakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
