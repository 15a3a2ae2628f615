/** MoeRankRows on WebGPU: 1 launch, a thread counts the rows of its row's expert that come before. */
import {MoeRankRows} from '../../contract/kernel_names';
import {LAST_START_WGSL} from '../shared/last_start';
import {entryPoint, newTensor, runWgsl, webgpuKernel, WORKGROUP_SIZE} from '../shared/webgpu';

const RANK_ROWS = /* wgsl */ `
  fn startOf(expert : u32) -> u32 { return offset[expert]; }
  ${LAST_START_WGSL}
  ${entryPoint(/* wgsl */ `
    let row = group * NUM_THREADS + thread;
    if (row >= uniforms.numRows) { return; }
    let expert = lastStart(row, uniforms.numExperts);
    let first = offset[expert];
    let end = offset[expert + 1];
    var rank = 0u;
    // Else the row is of no expert.
    if (row >= first && row < end) {
      let value = values[row];
      for (var other = first; other < end; other++) {
        rank += u32(values[other] > value || (values[other] == value && other < row));
      }
    }
    ranks[row] = rank;`)}`;

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
    constants: {NUM_THREADS: WORKGROUP_SIZE},
    numWorkgroups: Math.ceil(numRows / WORKGROUP_SIZE),
    code: () => RANK_ROWS,
  });
  return {ranks};
});
