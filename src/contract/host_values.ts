/** Values of a tensor on the host. */
export type HostArray = Float32Array | Int32Array;

/**
 * `values` in the array type of the dtype: float32 in a Float32Array, integers and booleans in an Int32Array. A backend
 * may return another type: on cpu, tf.cast from integers to float32 changes only the dtype and keeps the array.
 */
export function hostValuesOf(values: ArrayLike<number>, dtype: string): HostArray {
  if (dtype === 'float32') {
    return values instanceof Float32Array ? values : Float32Array.from(values);
  }
  return values instanceof Int32Array ? values : Int32Array.from(values);
}
