/**
 * The contract once more, by definition, as plain loops over nested arrays: every position is found by sorting or
 * counting again. Slow and independent of src/, so that the CPU kernels do not judge themselves.
 */
export type Routing = {
  ids: number[][];
  numExperts: number;
  numLocalExperts?: number;
  expertMap?: number[];
};

const upTo = (count: number) => Array.from({length: count}, (_, i) => i);
const ceilTo = (count: number, block: number) => Math.ceil(count / block) * block;
const isExpert = (id: number, numExperts: number) => id >= 0 && id < numExperts;

/** The most rows that any routing takes: each assignment has another expert, or every expert has one row to spare. */
function maxPaddedRows(numAssignments: number, numExperts: number, block: number): number {
  return Math.min(numAssignments + numExperts * (block - 1), numAssignments * block);
}

/** Assignments with their sort keys, in sorted order. */
function sortedAssignments({ids, numExperts, numLocalExperts, expertMap}: Routing) {
  const numLocal = numLocalExperts ?? numExperts;
  const keyed = ids.flat().map((id, assignment) => {
    if (!isExpert(id, numExperts)) {
      return {assignment, key: Infinity, local: false};
    }
    const index = expertMap == null ? id : expertMap[id];
    const local = isExpert(index, numLocal);
    return {assignment, key: local ? index : numExperts + id, local};
  });
  return keyed.sort((a, b) => (a.key === b.key ? a.assignment - b.assignment : a.key - b.key));
}

export type NaivePermute = {
  numRows: number;
  /** The token of each row, -1 for a row of no assignment. */
  rowToken: number[];
  /** The token whose scale each row carries, -1 when there are no tokens. */
  scaleToken: number[];
  expertFirstTokenOffset: number[];
  invPermutedIdx: number[];
  mIndices: number[];
  permutedIdx: number[];
};

export function naivePermute(
  routing: Routing & {topk: number; alignBlockSize?: number; fillInvalidExpert?: number},
): NaivePermute {
  const {ids, topk, numExperts, alignBlockSize: block, fillInvalidExpert = -1} = routing;
  const numLocal = routing.numLocalExperts ?? numExperts;
  const numAssignments = ids.length * topk;
  const numRows = block == null ? numAssignments : ceilTo(maxPaddedRows(numAssignments, numExperts, block), block);
  const sorted = sortedAssignments(routing);

  const counts = new Array<number>(numLocal).fill(0);
  sorted.filter(({local}) => local).forEach(({key}) => counts[key]++);
  const offset = [0];
  for (const [expert, count] of counts.entries()) {
    offset.push(offset[expert] + (block == null ? count : ceilTo(count, block)));
  }

  const invPermutedIdx = new Array<number>(numAssignments);
  const permutedIdx = new Array<number>(numRows).fill(numAssignments);
  let expertStart = 0;
  sorted.forEach(({assignment, key, local}, position) => {
    if (position === 0 || sorted[position - 1].key !== key) {
      expertStart = position;
    }
    const row = block == null ? position : local ? offset[key] + position - expertStart : offset[numLocal];
    invPermutedIdx[assignment] = row;
    if (local) {
      permutedIdx[row] = assignment;
    }
  });

  const rowToken = permutedIdx.map((i) => (i < numAssignments ? Math.floor(i / topk) : -1));
  const mIndices = new Array<number>(numRows).fill(fillInvalidExpert);
  if (block != null) {
    counts.forEach((_, expert) => mIndices.fill(expert, offset[expert], offset[expert + 1]));
  }
  return {
    numRows,
    rowToken,
    scaleToken: rowToken.map((token) => (token < 0 ? ids.length - 1 : token)),
    expertFirstTokenOffset: offset,
    invPermutedIdx,
    mIndices,
    permutedIdx,
  };
}

export type NaiveAlign = {sortedTokenIds: number[]; expertIds: number[]; numTokensPostPad: number[]};

export function naiveAlign(options: {
  ids: number[][];
  topk: number;
  blockSize: number;
  numExperts: number;
  expertMap?: number[];
  padSortedIds?: boolean;
  ignoreInvalidExperts?: boolean;
}): NaiveAlign {
  const {ids, topk, blockSize, numExperts, expertMap, padSortedIds, ignoreInvalidExperts} = options;
  const numAssignments = ids.length * topk;
  const bound = maxPaddedRows(numAssignments, numExperts, blockSize);
  const numSortedIds = padSortedIds ? ceilTo(bound, blockSize) : bound;
  const expertOf = (id: number) => {
    const expert = ignoreInvalidExperts && isExpert(id, numExperts) && expertMap ? expertMap[id] : id;
    return isExpert(id, numExperts) && isExpert(expert, numExperts) ? expert : undefined;
  };
  const label = (expert: number) => (expertMap && !ignoreInvalidExperts ? expertMap[expert] : expert);

  const ofExperts: number[][] = Array.from({length: numExperts}, () => []);
  ids.flat().forEach((id, i) => {
    const expert = expertOf(id);
    if (expert != null) {
      ofExperts[expert].push(i);
    }
  });
  const sortedTokenIds: number[] = [];
  const expertIds: number[] = [];
  for (const [expert, mine] of ofExperts.entries()) {
    for (let start = 0; start < mine.length; start += blockSize) {
      expertIds.push(label(expert));
      const block = mine.slice(start, start + blockSize);
      sortedTokenIds.push(...block, ...new Array<number>(blockSize - block.length).fill(numAssignments));
    }
  }
  const numTokensPostPad = [sortedTokenIds.length];
  while (sortedTokenIds.length < numSortedIds) {
    sortedTokenIds.push(numAssignments);
  }
  while (expertIds.length < Math.ceil(bound / blockSize)) {
    expertIds.push(ignoreInvalidExperts ? -1 : label(0));
  }
  return {sortedTokenIds, expertIds, numTokensPostPad};
}

export type NaiveBlockAligned = {
  rowToken: number[];
  sortedTokenIds: number[];
  expertIds: number[];
  invPermutedIdx: number[];
};

export function naivePermuteBlockAligned(options: {
  ids: number[][];
  topk: number;
  blockSize: number;
  numExperts: number;
  expertMap?: number[];
}): NaiveBlockAligned {
  const {ids, topk, blockSize} = options;
  const numAssignments = ids.length * topk;
  const aligned = naiveAlign({...options, padSortedIds: true});
  const rowOf = new Map(aligned.sortedTokenIds.map((i, row) => [i, row]));
  const clamped = aligned.sortedTokenIds.map((i) => Math.max(0, Math.min(i, numAssignments - 1)));
  return {
    rowToken: clamped.map((i) => (ids.length === 0 ? -1 : Math.floor(i / topk))),
    sortedTokenIds: clamped,
    expertIds: aligned.expertIds.flatMap((label) => new Array<number>(blockSize).fill(label)),
    invPermutedIdx: upTo(numAssignments).map((i) => rowOf.get(i) ?? aligned.sortedTokenIds.length),
  };
}

/** Weighted sums in float64, and the sums of |terms| for error bounds. */
export function naiveUnpermute(
  rows: number[][],
  weights: number[][],
  inverse: number[][],
  hiddenSize: number,
  limit = rows.length,
): {sums: number[][]; magnitudes: number[][]} {
  const sum = (term: (value: number) => number) =>
    weights.map((tokenWeights, t) =>
      upTo(hiddenSize).map((h) =>
        tokenWeights.reduce((acc, weight, k) => {
          const row = inverse[t][k];
          return row < 0 || row >= Math.min(limit, rows.length) ? acc : acc + term(weight * rows[row][h]);
        }, 0),
      ),
    );
  return {sums: sum((value) => value), magnitudes: sum(Math.abs)};
}
