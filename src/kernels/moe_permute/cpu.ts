/**
 * MoePermute on the host: a stable counting sort of the N assignments by expert, then one copy a row.
 *
 * Sort key of an assignment: its local expert 0..L-1; if its expert is not local, E + the global id; if the
 * id is no expert at all, 2E. Ties keep ascending assignment id. Only local assignments get their row copied.
 * Time O(N + E + R*H).
 */
import {MoePermute, type MoePermuteAttrs} from '../../contract/kernel_names';
import {permuteSizes, roundUp} from '../../contract/output_sizes';
import {hostKernel, type HostArray, type HostTensor} from '../shared/host_kernel';

export const moePermuteCpu = hostKernel(MoePermute, ({hiddenStates, topkIds, expertMap, a1qScale}, attrs) => {
  const [numTokens, topk] = topkIds.shape;
  const {numAssignments, numRows} = permuteSizes(topkIds.shape, attrs);
  const {numLocalExperts, alignBlockSize, fillInvalidExpert} = attrs;
  const padWithLastToken = attrs.padding === 'lastToken';
  const localityMap = padWithLastToken ? undefined : expertMap?.values;
  const labelMap = padWithLastToken ? expertMap?.values : undefined;

  const keys = sortKeys(topkIds.values, localityMap, attrs);
  const counts = new Int32Array(2 * attrs.numExperts + 1);
  for (let i = 0; i < numAssignments; i++) {
    counts[keys[i]]++;
  }

  const expertFirstTokenOffset = new Int32Array(numLocalExperts + 1);
  for (let e = 0; e < numLocalExperts; e++) {
    const rows = alignBlockSize === 0 ? counts[e] : roundUp(counts[e], alignBlockSize);
    expertFirstTokenOffset[e + 1] = expertFirstTokenOffset[e] + rows;
  }
  const numLocalRows = expertFirstTokenOffset[numLocalExperts];

  // nextRow[key]: where the next assignment of that key goes. Unaligned, the others queue up behind the
  // local ones, so that each keeps its own sorted position; aligned, they share one index.
  const nextRow = new Int32Array(counts.length);
  nextRow.set(expertFirstTokenOffset.subarray(0, numLocalExperts));
  let sortedPosition = numLocalRows;
  for (let key = numLocalExperts; key < counts.length; key++) {
    nextRow[key] = sortedPosition;
    sortedPosition += counts[key];
  }
  const sharedIndex = padWithLastToken ? numRows : numLocalRows;

  const permutedIdx = new Int32Array(numRows).fill(numAssignments);
  const invPermutedIdx = new Int32Array(numAssignments);
  for (let i = 0; i < numAssignments; i++) {
    const key = keys[i];
    if (key < numLocalExperts) {
      permutedIdx[nextRow[key]] = i;
      invPermutedIdx[i] = nextRow[key]++;
    } else {
      invPermutedIdx[i] = alignBlockSize === 0 ? nextRow[key]++ : sharedIndex;
    }
  }

  const labelOf = (expert: number) => (labelMap == null ? expert : labelMap[expert]);
  const mIndices = new Int32Array(numRows).fill(padWithLastToken ? labelOf(0) : fillInvalidExpert);
  if (alignBlockSize !== 0) {
    for (let e = 0; e < numLocalExperts; e++) {
      mIndices.fill(labelOf(e), expertFirstTokenOffset[e], expertFirstTokenOffset[e + 1]);
    }
  }

  const tokens = new Int32Array(numRows);
  for (let r = 0; r < numRows; r++) {
    tokens[r] = permutedIdx[r] < numAssignments ? Math.floor(permutedIdx[r] / topk) : -1;
  }
  const lastToken = numTokens - 1;
  const permutedHiddenStates = gatherRows(hiddenStates, tokens, padWithLastToken ? lastToken : -1);
  const scale = a1qScale && gatherRows(a1qScale, tokens, lastToken);
  if (padWithLastToken && numAssignments > 0) {
    for (let r = 0; r < numRows; r++) {
      permutedIdx[r] = Math.min(permutedIdx[r], numAssignments - 1);
    }
  }
  return {
    permutedHiddenStates,
    expertFirstTokenOffset: {values: expertFirstTokenOffset, shape: [numLocalExperts + 1]},
    invPermutedIdx: {values: invPermutedIdx, shape: [numAssignments]},
    mIndices: {values: mIndices, shape: [numRows]},
    permutedIdx: {values: permutedIdx, shape: [numRows]},
    a1qScale: scale,
  };
});

function sortKeys(
  ids: HostArray,
  localityMap: HostArray | undefined,
  {numExperts, numLocalExperts}: MoePermuteAttrs,
): Int32Array {
  const sortKeyOf = new Int32Array(numExperts);
  for (let id = 0; id < numExperts; id++) {
    const local = localityMap == null ? id : localityMap[id];
    sortKeyOf[id] = local >= 0 && local < numLocalExperts ? local : numExperts + id;
  }
  const keys = new Int32Array(ids.length);
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    keys[i] = id >= 0 && id < numExperts ? sortKeyOf[id] : 2 * numExperts;
  }
  return keys;
}

/**
 * out[r] = x[tokens[r]], or x[padToken] where tokens[r] is -1, or 0 where padToken is -1 too.
 * Rows move by copies between arrays of one type, which keep every bit (NaN payloads, -0, subnormals).
 */
function gatherRows(x: HostTensor, tokens: Int32Array, padToken: number): HostTensor {
  const rowShape = x.shape.slice(1);
  const rowSize = rowShape.reduce((size, dim) => size * dim, 1);
  const ArrayType = x.values instanceof Int32Array ? Int32Array : Float32Array;
  const values = new ArrayType(tokens.length * rowSize);
  for (let r = 0; r < tokens.length; r++) {
    const token = tokens[r] < 0 ? padToken : tokens[r];
    if (token >= 0) {
      values.set(x.values.subarray(token * rowSize, (token + 1) * rowSize), r * rowSize);
    }
  }
  return {values, shape: [tokens.length, ...rowShape]};
}
