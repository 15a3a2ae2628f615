/**
 * Arithmetic in float64 with a bound for the error of float32: each value has an error, which is Infinity or NaN if
 * float32 may give any value, as after an overflow.
 */
export type Bounded = {values: Float64Array; errors: Float64Array};

export const MAX_FLOAT32 = (2 - 2 ** -23) * 2 ** 127;
const MIN_NORMAL = 2 ** -126;

/** Numbers without an error. */
export const exact = (values: ArrayLike<number>): Bounded => ({
  values: Float64Array.from(values),
  errors: new Float64Array(values.length),
});

export const zeros = (length: number): Bounded => exact(new Float64Array(length));

/** The tolerance for rounding: a part of the sum of |terms|, and a number. */
export type Tolerance = {relative: number; absolute: number};

export const isSubnormal = (x: number) => x !== 0 && x < MIN_NORMAL && x > -MIN_NORMAL;

/** A sum of products. Subnormal intermediate values may count as 0. */
export class Sum {
  private value = 0;
  private magnitude = 0;
  private error = 0;

  add(a: number, b = 1, aError = 0, bError = 0): this {
    const term = a * b;
    this.value += term;
    if (Number.isFinite(term)) {
      this.magnitude += Math.abs(term);
    }
    if (aError !== 0 || bError !== 0) {
      this.error += Math.abs(a) * bError + Math.abs(b) * aError + aError * bError;
    }
    if (isSubnormal(a) || isSubnormal(b) || isSubnormal(term)) {
      this.error += Number.isFinite(term) ? Math.abs(term) : NaN;
    }
    if (isSubnormal(this.value)) {
      this.error += MIN_NORMAL;
    }
    return this;
  }

  /** Writes the sum, within `tolerance`, to an element. */
  to({values, errors}: Bounded, at: number, {relative, absolute}: Tolerance): void {
    const error = this.error + relative * this.magnitude + absolute;
    values[at] = this.value;
    errors[at] = this.magnitude + error > MAX_FLOAT32 ? Infinity : Number.isFinite(this.value) ? error : 0 * error;
  }
}
