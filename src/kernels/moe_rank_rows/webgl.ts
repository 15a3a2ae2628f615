/** MoeRankRows on WebGL: 1 draw, a fragment counts the rows of its row's expert that come before. */
import {MoeRankRows} from '../../kernel_names';
import {assertExact, assertFits, fillTensor, runGlsl, webglKernel} from '../shared/webgl';

export const moeRankRowsWebGL = webglKernel(MoeRankRows, (backend, {values, expertFirstTokenOffset}) => {
  const [numRows] = values.shape;
  assertExact(MoeRankRows, {'the number of rows': numRows});
  assertFits(MoeRankRows, {values: values.shape, expertFirstTokenOffset: expertFirstTokenOffset.shape});
  if (numRows === 0) {
    return [fillTensor(backend, [0], 'int32', 0)];
  }
  const ranks = runGlsl(backend, {
    name: 'MoeRankRows',
    inputs: {values, offset: expertFirstTokenOffset},
    uniforms: {numExperts: expertFirstTokenOffset.shape[0] - 1},
    output: {shape: [numRows], dtype: 'int32'},
    code: `
      int offsetOf(int expert) { return indexOf(getOffset(expert)); }

      void main() {
        int row = getOutputCoords();
        // The first offset past the row; of no expert, there is none.
        int low = 0;
        int high = numExperts + 1;
        while (low < high) {
          int middle = (low + high) / 2;
          if (offsetOf(middle) > row) { high = middle; } else { low = middle + 1; }
        }
        int rank = 0;
        if (low <= numExperts) {
          float value = getValues(row);
          int end = offsetOf(low);
          for (int other = offsetOf(low - 1); other < end; other++) {
            float otherValue = getValues(other);
            rank += int(otherValue > value || (otherValue == value && other < row));
          }
        }
        setOutput(float(rank));
      }`,
  });
  return [ranks];
});
