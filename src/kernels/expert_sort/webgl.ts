/**
 * The stable sort of N assignments by key, in GLSL, of gathers alone: a fragment looks for the one assignment that
 * belongs in its place.
 *
 * Assignments are cut into C chunks of consecutive ids, and three draws are enough:
 *   keysBelow [keys+1, C]   how many of a chunk have a smaller key: a look at each of them
 *   starts [keys+1, C+1]    its exclusive prefix sum along the chunks; starts[key][C] are all with a smaller key
 *   order [N]             of a place, by binary search, the key, then the chunk, then a look at each in it
 * For more keys, each chunk is sorted first, and then keysBelow takes a binary search:
 *   localPositions [N]    where an assignment is in the order of its chunk: it counts those before it
 *   chunkOrder [N]        the assignment at each place of its chunk's order: it looks for the position
 * These two are all where there is one chunk. Many keys are sorted by their low digit, then by their high digit, which
 * a stable sort may do.
 *
 * Where assignments and experts have their rows is then found by binary search in the order, too.
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {LAST_START_GLSL} from '../shared/last_start';
import {type Labels, type MapUse, numKeysOf, type SortPlan} from './plan';
import {assertFits, constantTensor, disposeAll, runGlsl} from '../shared/webgl';

/** Up to here, one chunk takes less time than three more draws. */
const ONE_CHUNK_ASSIGNMENTS = 256;
const MIN_CHUNK_SIZE = 64;
/** Up to here, to count every key of a chunk reads less than to sort the chunk, and takes two draws less. */
const COUNTED_KEYS = 2 * MIN_CHUNK_SIZE;
/** Past this many keys two digits take less time, and less memory. */
const ONE_DIGIT_KEYS = 2048;
/** Chunks grow with the number of keys, so that the starts stay as large as a few times the assignments. */
const STARTS_PER_ASSIGNMENT = 4;
/** Up to here an element of a prefix sum adds what is before it; past that, it adds sums of groups. */
const SUMMED_AT_ONCE = 256;
const GROUP_SIZE = 64;

function chunkSizeOf(numAssignments: number, numKeys: number): number {
  if (numAssignments <= ONE_CHUNK_ASSIGNMENTS) {
    return numAssignments;
  }
  let chunkSize = MIN_CHUNK_SIZE;
  while (numKeys + 1 > STARTS_PER_ASSIGNMENT * chunkSize) {
    chunkSize *= 2;
  }
  return chunkSize;
}

/** The numbers of values of the digits that keys are sorted by, the low one first. */
function digitsOf(numAssignments: number, numKeys: number): number[] {
  if (numAssignments <= ONE_CHUNK_ASSIGNMENTS || numKeys <= ONE_DIGIT_KEYS) {
    return [numKeys];
  }
  const base = Math.ceil(Math.sqrt(numKeys));
  return [base, Math.ceil(numKeys / base)];
}

/** Asserts that textures hold what the sort makes of N assignments with these keys. */
export function assertSortFits(kernelName: string, numAssignments: number, numKeys: number): void {
  for (const numDigitValues of digitsOf(numAssignments, numKeys)) {
    const numChunks = Math.ceil(numAssignments / Math.max(1, chunkSizeOf(numAssignments, numDigitValues)));
    assertFits(kernelName, {'the counts of keys in chunks': [numDigitValues + 1, numChunks + 1]});
  }
}

/** int32 [N]: the assignment at each sorted position. `keys` is int32 [N], N >= 1, of values below numKeys. */
export function sortByKey(backend: MathBackendWebGL, keys: TensorInfo, numKeys: number): TensorInfo {
  const [numAssignments] = keys.shape;
  const [base, numHighDigits] = digitsOf(numAssignments, numKeys);
  if (numHighDigits == null) {
    return sortByDigit(backend, keys, numKeys);
  }
  const lowDigits = runGlsl(backend, {
    name: 'MoeSortLowDigits',
    inputs: {keys},
    uniforms: {base},
    output: {shape: [numAssignments], dtype: 'int32'},
    code: 'void main() { setOutput(float(imod(indexOf(getKeys(getOutputCoords())), base))); }',
  });
  const lowOrder = sortByDigit(backend, lowDigits, base);
  const highDigits = runGlsl(backend, {
    name: 'MoeSortHighDigits',
    inputs: {keys, lowOrder},
    uniforms: {base},
    output: {shape: [numAssignments], dtype: 'int32'},
    code: `
      void main() {
        int assignment = indexOf(getLowOrder(getOutputCoords()));
        setOutput(float(indexOf(getKeys(assignment)) / base));
      }`,
  });
  const highOrder = sortByDigit(backend, highDigits, numHighDigits);
  const order = runGlsl(backend, {
    name: 'MoeSortBothDigits',
    inputs: {lowOrder, highOrder},
    uniforms: {},
    output: {shape: [numAssignments], dtype: 'int32'},
    code: 'void main() { setOutput(getLowOrder(indexOf(getHighOrder(getOutputCoords())))); }',
  });
  disposeAll(backend, [lowDigits, lowOrder, highDigits, highOrder]);
  return order;
}

function sortByDigit(backend: MathBackendWebGL, keys: TensorInfo, numKeys: number): TensorInfo {
  const [numAssignments] = keys.shape;
  const chunkSize = chunkSizeOf(numAssignments, numKeys);
  const numChunks = Math.ceil(numAssignments / chunkSize);
  const uniforms = {numAssignments, chunkSize};
  if (numChunks === 1) {
    return sortChunks(backend, keys, chunkSize);
  }

  const keysBelow =
    numKeys <= COUNTED_KEYS
      ? countKeysBelow(backend, keys, numKeys, chunkSize)
      : searchKeysBelow(backend, keys, numKeys, chunkSize);
  const starts = exclusivePrefixSum(backend, keysBelow);
  const order = runGlsl(backend, {
    name: 'MoeSortOrder',
    inputs: {starts, keys},
    uniforms: {...uniforms, numKeys, numChunks},
    output: {shape: [numAssignments], dtype: 'int32'},
    code: `
      void main() {
        float place = float(getOutputCoords());
        // The last key with no more than \`place\` assignments of smaller ones.
        int key = 0;
        int endKey = numKeys;
        while (endKey - key > 1) {
          int middle = (key + endKey) / 2;
          if (getStarts(middle, numChunks) <= place) { key = middle; } else { endKey = middle; }
        }
        // The last chunk with no more than \`rest\` assignments of that key in the chunks before it.
        float rest = place - getStarts(key, numChunks);
        int chunk = 0;
        int endChunk = numChunks;
        while (endChunk - chunk > 1) {
          int middle = (chunk + endChunk) / 2;
          if (getStarts(key + 1, middle) - getStarts(key, middle) <= rest) { chunk = middle; } else { endChunk = middle; }
        }
        rest -= getStarts(key + 1, chunk) - getStarts(key, chunk);
        int first = chunk * chunkSize;
        int end = min(first + chunkSize, numAssignments);
        float wanted = float(key);
        int assignment = first;
        for (int i = first; i < end; i++) {
          if (getKeys(i) == wanted) {
            if (rest == 0.0) { assignment = i; }
            rest -= 1.0;
          }
        }
        setOutput(float(assignment));
      }`,
  });
  disposeAll(backend, [keysBelow, starts]);
  return order;
}

/** int32 [N]: the assignment at each place of its chunk's order. */
function sortChunks(backend: MathBackendWebGL, keys: TensorInfo, chunkSize: number): TensorInfo {
  const [numAssignments] = keys.shape;
  const uniforms = {numAssignments, chunkSize};
  const localPositions = runGlsl(backend, {
    name: 'MoeSortLocalPositions',
    inputs: {keys},
    uniforms,
    output: {shape: [numAssignments], dtype: 'int32'},
    code: `
      void main() {
        int i = getOutputCoords();
        int first = i / chunkSize * chunkSize;
        int end = min(first + chunkSize, numAssignments);
        float key = getKeys(i);
        int position = 0;
        for (int j = first; j < end; j++) {
          float other = getKeys(j);
          if (other < key || (other == key && j < i)) { position++; }
        }
        setOutput(float(position));
      }`,
  });
  const chunkOrder = runGlsl(backend, {
    name: 'MoeSortChunkOrder',
    inputs: {localPositions},
    uniforms,
    output: {shape: [numAssignments], dtype: 'int32'},
    code: `
      void main() {
        int place = getOutputCoords();
        int first = place / chunkSize * chunkSize;
        int end = min(first + chunkSize, numAssignments);
        float position = float(place - first);
        int assignment = first;
        for (int i = first; i < end; i++) {
          if (getLocalPositions(i) == position) { assignment = i; }
        }
        setOutput(float(assignment));
      }`,
  });
  disposeAll(backend, [localPositions]);
  return chunkOrder;
}

/** int32 [keys+1, C]: how many assignments of a chunk have a smaller key. */
function countKeysBelow(backend: MathBackendWebGL, keys: TensorInfo, numKeys: number, chunkSize: number): TensorInfo {
  const [numAssignments] = keys.shape;
  return runGlsl(backend, {
    name: 'MoeSortCountKeysBelow',
    inputs: {keys},
    uniforms: {numAssignments, chunkSize},
    output: {shape: [numKeys + 1, Math.ceil(numAssignments / chunkSize)], dtype: 'int32'},
    code: `
      void main() {
        ivec2 keyAndChunk = getOutputCoords();
        float key = float(keyAndChunk.x);
        int first = keyAndChunk.y * chunkSize;
        int end = min(first + chunkSize, numAssignments);
        float count = 0.0;
        for (int i = first; i < end; i++) { count += getKeys(i) < key ? 1.0 : 0.0; }
        setOutput(count);
      }`,
  });
}

/** The same, in chunks that are sorted. */
function searchKeysBelow(backend: MathBackendWebGL, keys: TensorInfo, numKeys: number, chunkSize: number): TensorInfo {
  const [numAssignments] = keys.shape;
  const chunkOrder = sortChunks(backend, keys, chunkSize);
  const keysBelow = runGlsl(backend, {
    name: 'MoeSortSearchKeysBelow',
    inputs: {keys, chunkOrder},
    uniforms: {numAssignments, chunkSize},
    output: {shape: [numKeys + 1, Math.ceil(numAssignments / chunkSize)], dtype: 'int32'},
    code: `
      void main() {
        ivec2 keyAndChunk = getOutputCoords();
        float key = float(keyAndChunk.x);
        int first = keyAndChunk.y * chunkSize;
        int low = first;
        int high = min(first + chunkSize, numAssignments);
        while (low < high) {
          int middle = (low + high) / 2;
          if (getKeys(indexOf(getChunkOrder(middle))) < key) { low = middle + 1; } else { high = middle; }
        }
        setOutput(float(low - first));
      }`,
  });
  disposeAll(backend, [chunkOrder]);
  return keysBelow;
}

/** int32 [rows, columns + 1] of int32 [rows, columns]: the sum of the elements before each in its row, and of all. */
export function exclusivePrefixSum(backend: MathBackendWebGL, x: TensorInfo): TensorInfo {
  const [numRows, numColumns] = x.shape;
  const output = {shape: [numRows, numColumns + 1], dtype: 'int32' as const};
  if (numColumns <= SUMMED_AT_ONCE) {
    return runGlsl(backend, {
      name: 'MoePrefixSum',
      inputs: {x},
      uniforms: {},
      output,
      code: `
        void main() {
          ivec2 coords = getOutputCoords();
          float sum = 0.0;
          for (int column = 0; column < coords.y; column++) { sum += getX(coords.x, column); }
          setOutput(sum);
        }`,
    });
  }
  const groupSums = runGlsl(backend, {
    name: 'MoePrefixSumGroups',
    inputs: {x},
    uniforms: {groupSize: GROUP_SIZE, numColumns},
    output: {shape: [numRows, Math.ceil(numColumns / GROUP_SIZE)], dtype: 'int32'},
    code: `
      void main() {
        ivec2 coords = getOutputCoords();
        int first = coords.y * groupSize;
        float sum = 0.0;
        for (int column = first; column < min(first + groupSize, numColumns); column++) { sum += getX(coords.x, column); }
        setOutput(sum);
      }`,
  });
  const groupStarts = exclusivePrefixSum(backend, groupSums);
  const sums = runGlsl(backend, {
    name: 'MoePrefixSumInGroups',
    inputs: {x, groupStarts},
    uniforms: {groupSize: GROUP_SIZE},
    output,
    code: `
      void main() {
        ivec2 coords = getOutputCoords();
        int group = coords.y / groupSize;
        float sum = getGroupStarts(coords.x, group);
        for (int column = group * groupSize; column < coords.y; column++) { sum += getX(coords.x, column); }
        setOutput(sum);
      }`,
  });
  disposeAll(backend, [groupSums, groupStarts]);
  return sums;
}

/** int32 [numStarts]: how many assignments have a smaller key than 0, 1, 2, …. */
export function keyStarts(
  backend: MathBackendWebGL,
  keys: TensorInfo,
  order: TensorInfo,
  numStarts: number,
): TensorInfo {
  return runGlsl(backend, {
    name: 'MoeKeyStarts',
    inputs: {keys, order},
    uniforms: {numAssignments: keys.shape[0]},
    output: {shape: [numStarts], dtype: 'int32'},
    code: `
      void main() {
        float key = float(getOutputCoords());
        int low = 0;
        int high = numAssignments;
        while (low < high) {
          int middle = (low + high) / 2;
          if (getKeys(indexOf(getOrder(middle))) < key) { low = middle + 1; } else { high = middle; }
        }
        setOutput(float(low));
      }`,
  });
}

/** GLSL of sortKeyOf(id), the sort key of an assignment; the last key is that of an id that is no expert. */
const SORT_KEY_OF: Record<MapUse, string> = {
  local: `
    int sortKeyOf(int id) {
      if (id < 0 || id >= numExperts) { return 2 * numExperts; }
      int local = indexOf(getExpertMap(id));
      return local >= 0 && local < numLocalExperts ? local : numExperts + id;
    }`,
  merge: `
    int sortKeyOf(int id) {
      if (id < 0 || id >= numExperts) { return numExperts; }
      int expert = indexOf(getExpertMap(id));
      return expert >= 0 && expert < numExperts ? expert : numExperts;
    }`,
  none: 'int sortKeyOf(int id) { return id < 0 || id >= numExperts ? numExperts : id; }',
  label: 'int sortKeyOf(int id) { return id < 0 || id >= numExperts ? numExperts : id; }',
};

export type SortedExperts = {
  /** int32 [N]: the sort key of each assignment. */
  keys: TensorInfo;
  /** int32 [N]: the assignment at each sorted position. */
  order: TensorInfo;
  /** int32 [L+1]: the sorted position of the first assignment of each local expert, and of the first of none. */
  positions: TensorInfo;
  /** int32 [L+1]: the first row of each local expert, and the number of rows in use. */
  rows: TensorInfo;
};

/** Sorts assignments, of which there is one at least. The caller disposes of the result by disposeSorted. */
export function sortExperts(
  backend: MathBackendWebGL,
  topkIds: TensorInfo,
  expertMap: TensorInfo | undefined,
  {sizes, mapUse}: SortPlan,
): SortedExperts {
  const {numAssignments, numExperts, numLocalExperts, blockSize} = sizes;
  const readsMap = expertMap != null && (mapUse === 'local' || mapUse === 'merge');
  const keys = runGlsl(backend, {
    name: `MoeSortKeys_${readsMap ? mapUse : 'none'}`,
    inputs: {topkIds, ...(readsMap ? {expertMap} : {})},
    uniforms: {topk: topkIds.shape[1], numExperts, numLocalExperts},
    output: {shape: [numAssignments], dtype: 'int32'},
    code: `
      ${SORT_KEY_OF[mapUse]}
      void main() {
        int i = getOutputCoords();
        setOutput(float(sortKeyOf(indexOf(getTopkIds(i / topk, imod(i, topk))))));
      }`,
  });
  const order = sortByKey(backend, keys, numKeysOf(numExperts, mapUse));
  const positions = keyStarts(backend, keys, order, numLocalExperts + 1);
  if (blockSize <= 1) {
    return {keys, order, positions, rows: positions};
  }
  const paddedCounts = runGlsl(backend, {
    name: 'MoePaddedCounts',
    inputs: {positions},
    uniforms: {blockSize},
    output: {shape: [1, numLocalExperts], dtype: 'int32'},
    code: `
      void main() {
        int expert = getOutputCoords().y;
        int count = indexOf(getPositions(expert + 1) - getPositions(expert));
        setOutput(float((count + blockSize - 1) / blockSize * blockSize));
      }`,
  });
  const rows = exclusivePrefixSum(backend, paddedCounts);
  disposeAll(backend, [paddedCounts]);
  return {keys, order, positions, rows: {...rows, shape: [numLocalExperts + 1]}};
}

/** Disposes all but `kept`; positions and rows may be one tensor. */
export function disposeSorted(backend: MathBackendWebGL, sorted: SortedExperts, kept: TensorInfo[] = []): void {
  const {keys, order, positions, rows} = sorted;
  const all = [keys, order, positions, ...(rows === positions ? [] : [rows])];
  disposeAll(
    backend,
    all.filter((tensor) => !kept.includes(tensor)),
  );
}

/** GLSL: the local expert that has a row in use. */
const EXPERT_AT = `
  int startOf(int expert) { return int(getRows(expert)); }
  ${LAST_START_GLSL}
  int expertAt(int row) { return lastStart(row, 0, numLocalExperts); }`;

/** int32 [numRows]: the assignment of each row, `padding` where there is none. */
export function assignmentsOfRows(
  backend: MathBackendWebGL,
  {order, positions, rows}: SortedExperts,
  numRows: number,
  padding: number,
): TensorInfo {
  return runGlsl(backend, {
    name: 'MoeAssignmentsOfRows',
    inputs: {order, positions, rows},
    uniforms: {numLocalExperts: rows.shape[0] - 1, padding},
    output: {shape: [numRows], dtype: 'int32'},
    code: `
      ${EXPERT_AT}
      void main() {
        int row = getOutputCoords();
        float assignment = float(padding);
        if (row < startOf(numLocalExperts)) {
          int expert = expertAt(row);
          float position = getPositions(expert) + (float(row) - getRows(expert));
          if (position < getPositions(expert + 1)) { assignment = getOrder(indexOf(position)); }
        }
        setOutput(assignment);
      }`,
  });
}

/** int32 [numLabels]: the label of every rowsPerLabel-th row. `expertMap` is what experts are called. */
export function labelsOfRows(
  backend: MathBackendWebGL,
  rows: TensorInfo,
  expertMap: TensorInfo | undefined,
  labels: Labels,
  numLabels: number,
  rowsPerLabel: number,
): TensorInfo {
  if (labels.experts === 'fill') {
    // It is seldom read on the GPU.
    return constantTensor(backend, [numLabels], new Int32Array(numLabels).fill(labels.fill));
  }
  return runGlsl(backend, {
    name: `MoeLabelsOfRows_${expertMap == null ? 'none' : 'label'}`,
    inputs: {rows, ...(expertMap == null ? {} : {expertMap})},
    uniforms: {
      numLocalExperts: rows.shape[0] - 1,
      rowsPerLabel,
      hasTailOfExpertZero: Number(labels.tail === 'expertZero'),
      fillLabel: labels.fill,
    },
    output: {shape: [numLabels], dtype: 'int32'},
    code: `
      ${EXPERT_AT}
      float labelOf(int expert) { return ${expertMap == null ? 'float(expert)' : 'getExpertMap(expert)'}; }
      void main() {
        int row = getOutputCoords() * rowsPerLabel;
        if (row < startOf(numLocalExperts)) {
          setOutput(labelOf(expertAt(row)));
        } else {
          setOutput(hasTailOfExpertZero == 1 ? labelOf(0) : float(fillLabel));
        }
      }`,
  });
}
