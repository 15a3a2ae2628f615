/** Reads many ranges of files, in the order of the files and in few slices. */
import {
  type CheckpointBytes,
  FilePart,
  forSeveralAtOnce,
  MAX_SLICE_BYTES,
  readBytes,
  type Reading,
  readInto,
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
/** A slice of a file, and the ranges in it. */
type Slice = {file: SliceableFile; begin: number; end: number; ranges: PlacedRange[]};
type PlacedRange = {begin: number; end: number; use: ByteRange['use']};

/**
 * Reads all ranges. A range of more than MAX_SLICE_BYTES is put together from several slices, one such range at a time.
 *
 * @param onRead  Called with the number of bytes of each range that was used.
 */
export async function readRanges(
  ranges: readonly ByteRange[],
  reading: Reading,
  onRead: (numBytes: number) => void,
): Promise<void> {
  await useMemory(ranges, reading, onRead);
  const useSlice = (slice: Slice, read: Uint8Array): void => {
    for (const {begin, end, use} of slice.ranges) {
      use(read.subarray(begin - slice.begin, end - slice.begin));
      onRead(end - begin);
    }
  };
  const slices = slicesOf(ranges);
  const sizeOf = ({begin, end}: Slice) => end - begin;
  const large = slices.filter((slice) => sizeOf(slice) > MAX_SLICE_BYTES);
  const memory = new Uint8Array(large.reduce((size, slice) => Math.max(size, sizeOf(slice)), 0));
  for (const slice of large) {
    const read = memory.subarray(0, sizeOf(slice));
    await readInto(read, slice.file, slice.begin, reading);
    useSlice(slice, read);
  }
  const small = slices.filter((slice) => sizeOf(slice) <= MAX_SLICE_BYTES);
  await forSeveralAtOnce(small, async (slice) =>
    useSlice(slice, await readBytes(slice.file, slice.begin, slice.end, reading)),
  );
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
