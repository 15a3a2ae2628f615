/** Values of a tensor on the host. */
export type HostArray = Float32Array | Int32Array;

/**
 * `values` in the array that the dtype has: float32 in a Float32Array, integers and booleans in an Int32Array. What a
 * backend gives may be another one: tf.cast on cpu makes float32 of integers in name only, and keeps their array.
 */
export function hostValuesOf(values: ArrayLike<number>, dtype: string): HostArray {
  if (dtype === 'float32') {
    return values instanceof Float32Array ? values : Float32Array.from(values);
  }
  return values instanceof Int32Array ? values : Int32Array.from(values);
}
