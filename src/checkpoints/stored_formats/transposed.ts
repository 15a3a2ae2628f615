/** So few rows that their cache lines stay cached while all columns are read. */
const TRANSPOSED_ROWS = 32;

/** Columns of a matrix [rows, columns], as rows: all, or some that follow each other. */
export function transposed<Values extends Float32Array | Int32Array | Uint16Array | Uint8Array>(
  matrix: Values,
  rows: number,
  columns: number,
  firstColumn = 0,
  numColumns = columns,
): Values {
  const out = matrix.slice(0, rows * numColumns) as Values;
  for (let firstRow = 0; firstRow < rows; firstRow += TRANSPOSED_ROWS) {
    const endRow = Math.min(firstRow + TRANSPOSED_ROWS, rows);
    for (let column = 0; column < numColumns; column++) {
      for (let row = firstRow; row < endRow; row++) {
        out[column * rows + row] = matrix[row * columns + firstColumn + column];
      }
    }
  }
  return out;
}
