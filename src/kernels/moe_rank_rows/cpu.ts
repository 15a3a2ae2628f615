/** MoeRankRows on the host: the rows of each expert, sorted. */
import {MoeRankRows} from '../../contract/kernel_names';
import {hostKernel} from '../shared/host_kernel';

export const moeRankRowsCpu = hostKernel(MoeRankRows, ({values: {values}, expertFirstTokenOffset: offset}) => {
  const ranks = new Int32Array(values.length);
  for (let expert = 0; expert + 1 < offset.values.length; expert++) {
    const first = offset.values[expert];
    const rows = Int32Array.from({length: offset.values[expert + 1] - first}, (_, i) => first + i);
    rows.sort((a, b) => values[b] - values[a] || a - b);
    rows.forEach((row, rank) => {
      ranks[row] = rank;
    });
  }
  return {ranks: {values: ranks, shape: [values.length]}};
});
