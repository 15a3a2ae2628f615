/** MoeRankRows on WebGL: 1 draw, a fragment counts the rows of its row's expert that come before. */
import {MoeRankRows} from '../../contract/kernel_names';
import {assertExact, assertFits, EXPERT_OF_ROW, fillTensor, runGlsl, webglKernel} from '../shared/webgl';

export const moeRankRowsWebGL = webglKernel(MoeRankRows, (backend, {values, expertFirstTokenOffset}) => {
  const [numRows] = values.shape;
  assertExact(MoeRankRows, {'the number of rows': numRows});
  assertFits(MoeRankRows, {values: values.shape, expertFirstTokenOffset: expertFirstTokenOffset.shape});
  if (numRows === 0) {
    return {ranks: fillTensor(backend, [0], 'int32', 0)};
  }
  const ranks = runGlsl(backend, {
    name: 'MoeRankRows',
    inputs: {values, offset: expertFirstTokenOffset},
    uniforms: {firstExpert: 0, numExperts: expertFirstTokenOffset.shape[0] - 1},
    output: {shape: [numRows], dtype: 'int32'},
    code: `
      ${EXPERT_OF_ROW}

      void main() {
        int row = getOutputCoords();
        int expert = expertOfRow(row);
        int rank = 0;
        if (expert >= 0) {
          float value = getValues(row);
          int end = offsetOf(expert + 1);
          for (int other = offsetOf(expert); other < end; other++) {
            float otherValue = getValues(other);
            rank += int(otherValue > value || (otherValue == value && other < row));
          }
        }
        setOutput(float(rank));
      }`,
  });
  return {ranks};
});
