/** Reads many ranges of files, in the order of the files and in few slices. */
import {
  type CheckpointBytes,
  FilePart,
  MAX_SLICE_BYTES,
  partOf,
  readAllBytes,
  type Reading,
  type SliceableFile,
} from './checkpoint_file';

/** Bytes that are read, and passed to `use`, which must not keep them. */
export type ByteRange = {
  bytes: CheckpointBytes;
  begin: number;
  end: number;
  use: (read: Uint8Array) => void;
};

/** Ranges that are so near to each other in a file are read in one slice. */
const MAX_GAP_BYTES = 2 ** 16;
/** So many slices of a file are read at once, because each waits for its server. */
const NUM_SLICES_AT_ONCE = 3;

/** A slice of a file, and the ranges in it. */
type Slice = {file: SliceableFile; begin: number; end: number; ranges: PlacedRange[]};
type PlacedRange = {begin: number; end: number; use: ByteRange['use']};

/**
 * Reads all ranges. A range of more than MAX_SLICE_BYTES is put together from several slices.
 *
 * @param onRead  Called with the number of bytes of each range that was used.
 */
export async function readRanges(
  ranges: readonly ByteRange[],
  reading: Reading,
  onRead: (numBytes: number) => void,
): Promise<void> {
  await useMemory(ranges, reading, onRead);
  const slices = slicesOf(ranges);
  let next = 0;
  let isStopped = false;
  const readSlices = async (): Promise<void> => {
    while (next < slices.length && !isStopped) {
      const {file, begin, end, ranges: inSlice} = slices[next++];
      const read = await readAllBytes(partOf(file, begin, end), reading);
      for (const range of inSlice) {
        range.use(read.subarray(range.begin - begin, range.end - begin));
        onRead(range.end - range.begin);
      }
    }
  };
  const readers = Array.from({length: Math.min(NUM_SLICES_AT_ONCE, slices.length)}, () =>
    readSlices().catch((error: unknown) => {
      isStopped = true;
      throw error;
    }),
  );
  // All of them end before a tensor may be disposed of.
  const results = await Promise.allSettled(readers);
  const failed = results.find((result): result is PromiseRejectedResult => result.status === 'rejected');
  if (failed != null) {
    throw failed.reason;
  }
}

/** Uses the ranges of files in memory. Between some of them other tasks get their turn. */
async function useMemory(
  ranges: readonly ByteRange[],
  {signal}: Reading,
  onRead: (numBytes: number) => void,
): Promise<void> {
  let numBytes = 0;
  for (const {bytes, begin, end, use} of ranges) {
    if (ArrayBuffer.isView(bytes)) {
      signal?.throwIfAborted();
      use(bytes.subarray(begin, end));
      onRead(end - begin);
      numBytes += end - begin;
      if (numBytes > MAX_SLICE_BYTES) {
        numBytes = 0;
        await nextTask();
      }
    }
  }
}

const nextTask = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

function slicesOf(ranges: readonly ByteRange[]): Slice[] {
  const byFile = new Map<SliceableFile, PlacedRange[]>();
  for (const {bytes, begin, end, use} of ranges) {
    if (!ArrayBuffer.isView(bytes)) {
      const {file, begin: offset} = bytes instanceof FilePart ? bytes : {file: bytes, begin: 0};
      const placed = byFile.get(file) ?? [];
      placed.push({begin: offset + begin, end: offset + end, use});
      byFile.set(file, placed);
    }
  }
  const slices: Slice[] = [];
  for (const [file, placed] of byFile) {
    placed.sort((a, b) => a.begin - b.begin);
    let slice: Slice | undefined;
    for (const range of placed) {
      if (slice == null || range.begin > slice.end + MAX_GAP_BYTES || range.end > slice.begin + MAX_SLICE_BYTES) {
        slice = {file, begin: range.begin, end: range.end, ranges: []};
        slices.push(slice);
      }
      slice.end = Math.max(slice.end, range.end);
      slice.ranges.push(range);
    }
  }
  return slices;
}
