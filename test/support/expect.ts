/** Expectations whose messages have the worst error, its place, both values, and how many elements fail. */
import type {Tensor} from '../../src/tf';

type Nested = number | readonly Nested[];
const flatten = (values: Nested): number[] =>
  typeof values === 'number' ? [values] : (values as readonly Nested[]).flatMap(flatten);

type Expected = Nested | Float32Array | Int32Array;
const toNumbers = (values: Expected): ArrayLike<number> =>
  values instanceof Float32Array || values instanceof Int32Array ? values : flatten(values);

/** Whether results are looked at: not while the device check only compiles shaders, when nothing has been computed. */
export const results = {areLookedAt: true};

/** The elements of an int32 tensor, exactly. */
export async function expectInts(actual: Tensor, expected: Expected, what: string): Promise<void> {
  const wanted = toNumbers(expected);
  expect(actual.dtype).withContext(what).toBe('int32');
  const given = await actual.data();
  expectNoneWrong(given, wanted, what, (a, b) => a === b);
}

/** The elements of a float32 tensor, exactly; NaN equals NaN, and 0 equals -0. */
export async function expectFloats(actual: Tensor, expected: Expected, what: string): Promise<void> {
  expect(actual.dtype).withContext(what).toBe('float32');
  const given = await actual.data();
  expectNoneWrong(given, toNumbers(expected), what, (a, b) => a === b || (Number.isNaN(a) && Number.isNaN(b)));
}

/** The elements of a float32 tensor, each within its own bound. */
export async function expectWithin(
  actual: Tensor,
  expected: Expected,
  bound: (i: number, wanted: number) => number,
  what: string,
): Promise<void> {
  expect(actual.dtype).withContext(what).toBe('float32');
  const given = await actual.data();
  const wanted = toNumbers(expected);
  expectNoneWrong(given, wanted, what, (a, b, i) => Math.abs(a - b) <= bound(i, b));
}

/** Throws if an element is wrong, so that a property that fails is shrunk. */
function expectNoneWrong(
  given: ArrayLike<number>,
  wanted: ArrayLike<number>,
  what: string,
  isRight: (given: number, wanted: number, i: number) => boolean,
): void {
  if (!results.areLookedAt) {
    return;
  }
  if (given.length !== wanted.length) {
    throw new Error(`${what}: ${given.length} elements where ${wanted.length} are wanted`);
  }
  const wrong: number[] = [];
  for (let i = 0; i < given.length; i++) {
    if (!isRight(given[i], wanted[i], i)) {
      wrong.push(i);
    }
  }
  if (wrong.length > 0) {
    const error = (i: number) => Math.abs(given[i] - wanted[i]);
    const worst = wrong.reduce((a, b) => (error(b) > error(a) ? b : a));
    const at = (i: number) => `[${i}] is ${given[i]}, wanted ${wanted[i]}`;
    throw new Error(`${what}: ${wrong.length} of ${given.length} wrong; first ${at(wrong[0])}; worst ${at(worst)}`);
  }
  expect(wrong.length).toBe(0);
}
