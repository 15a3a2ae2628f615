/** MoeRankRows on WebGPU: 1 launch, a thread counts the rows of its row's expert that come before. */
import {MoeRankRows} from '../../contract/kernel_names';
import {entryPoint, newTensor, runWgsl, webgpuKernel, WORKGROUP_SIZE} from '../shared/webgpu';

export const moeRankRowsWebGPU = webgpuKernel(MoeRankRows, (backend, {values, expertFirstTokenOffset}) => {
  const [numRows] = values.shape;
  const ranks = newTensor(backend, [numRows], 'int32');
  if (numRows === 0) {
    return {ranks};
  }
  runWgsl(backend, {
    name: 'MoeRankRows',
    buffers: [
      {name: 'ranks', type: 'u32', access: 'read_write', tensor: ranks},
      {name: 'values', type: 'f32', access: 'read', tensor: values},
      {name: 'offset', type: 'u32', access: 'read', tensor: expertFirstTokenOffset},
    ],
    uniforms: {numRows, numExperts: expertFirstTokenOffset.shape[0] - 1},
    numWorkgroups: Math.ceil(numRows / WORKGROUP_SIZE),
    code: () =>
      entryPoint(`
        let row = group * ${WORKGROUP_SIZE}u + thread;
        if (row >= uniforms.numRows) { return; }
        // The first offset past the row ends the row's expert. A row of no expert finds the very first offset, or none.
        var low = 0u;
        var high = uniforms.numExperts + 1;
        while (low < high) {
          let middle = (low + high) / 2;
          if (offset[middle] > row) { high = middle; } else { low = middle + 1; }
        }
        var rank = 0u;
        if (low > 0 && low <= uniforms.numExperts) {
          let value = values[row];
          for (var other = offset[low - 1]; other < offset[low]; other++) {
            rank += u32(values[other] > value || (values[other] == value && other < row));
          }
        }
        ranks[row] = rank;`),
  });
  return {ranks};
});
