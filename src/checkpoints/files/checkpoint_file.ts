/** Files of checkpoints, of which only the ranges that are asked for are read. */
import {assert, describeValue} from '../../arguments/checks';

/** A file, or a part of it, that gives its bytes in slices: a Blob, a File, or a file of a server. */
export type SliceableFile = {
  /** The number of its bytes. */
  readonly size: number;
  /** Bytes start to end - 1. */
  slice(start: number, end: number): {arrayBuffer(): Promise<ArrayBuffer>};
};

/** The bytes of a file, of which the buffer may be shared memory, or a file that is read in slices. */
export type CheckpointFile = ArrayBufferLike | Uint8Array | SliceableFile;

/** Bytes in memory, or in a file. */
export type CheckpointBytes = Uint8Array | SliceableFile;

export const numBytesOf = (bytes: CheckpointBytes): number =>
  ArrayBuffer.isView(bytes) ? bytes.byteLength : bytes.size;

/** [[Class]] of a value, also of one from another window, whose classes are different objects. */
const tagOf = (value: unknown): string => Object.prototype.toString.call(value).slice('[object '.length, -1);
const isArrayBuffer = (value: unknown): value is ArrayBufferLike => /^(Shared)?ArrayBuffer$/.test(tagOf(value));
export const isUint8Array = (value: unknown): value is Uint8Array =>
  ArrayBuffer.isView(value) && tagOf(value) === 'Uint8Array';

export const isSliceable = (value: unknown): value is SliceableFile => {
  const {size, slice} = (typeof value === 'object' && value !== null ? value : {}) as Partial<SliceableFile>;
  return Number.isSafeInteger(size) && size! >= 0 && typeof slice === 'function';
};

/** The file as bytes in memory, without a copy, or as it is. */
export function asCheckpointBytes(file: CheckpointFile, fileName: string, opName: string): CheckpointBytes {
  if (ArrayBuffer.isView(file)) {
    return new Uint8Array(file.buffer, file.byteOffset, file.byteLength);
  }
  if (isArrayBuffer(file)) {
    return new Uint8Array(file);
  }
  assert(
    isSliceable(file),
    opName,
    () =>
      `${fileName} must be an ArrayBuffer, a Uint8Array, a Blob or a file of remoteCheckpointFile, but is ` +
      `${describeValue(file)}.`,
  );
  return file;
}

/** A part of bytes, without reading it. */
export function partOf(bytes: CheckpointBytes, begin: number, end: number): CheckpointBytes {
  if (ArrayBuffer.isView(bytes)) {
    return bytes.subarray(begin, end);
  }
  return bytes instanceof FilePart
    ? new FilePart(bytes.file, bytes.begin + begin, bytes.begin + end)
    : new FilePart(bytes, begin, end);
}

/** A part of a file. It is never a part of a part. */
export class FilePart implements SliceableFile {
  constructor(
    readonly file: SliceableFile,
    readonly begin: number,
    private readonly end: number,
  ) {}

  get size(): number {
    return this.end - this.begin;
  }

  slice(start: number, end: number): {arrayBuffer(signal?: AbortSignal): Promise<ArrayBuffer>} {
    return this.file.slice(this.begin + start, this.begin + end);
  }
}

/** How reading is called off. */
export type Reading = {opName: string; signal?: AbortSignal | null};

/** Bytes begin to end - 1, of which the memory may be that of `bytes`. */
export async function readBytes(
  bytes: CheckpointBytes,
  begin: number,
  end: number,
  {opName, signal}: Reading,
): Promise<Uint8Array> {
  signal?.throwIfAborted();
  if (ArrayBuffer.isView(bytes)) {
    return bytes.subarray(begin, end);
  }
  // Slices of remoteCheckpointFile take the signal. Blobs ignore it, and nobody waits for theirs.
  const slice = bytes.slice(begin, end) as {arrayBuffer(signal?: AbortSignal | null): Promise<ArrayBuffer>};
  const read = new Uint8Array(await orAborted(slice.arrayBuffer(signal), signal));
  signal?.throwIfAborted();
  assert(
    read.length === end - begin,
    opName,
    () => `a file must give bytes ${begin} to ${end - 1} of a tensor or header, but gave ${read.length} bytes.`,
  );
  return read;
}

/** The result, or the reason of a signal that comes before it. */
async function orAborted<Result>(result: Promise<Result>, signal: AbortSignal | null | undefined): Promise<Result> {
  if (signal == null) {
    return result;
  }
  let stop: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason as Error);
    signal.addEventListener('abort', stop);
  });
  try {
    return await Promise.race([result, aborted]);
  } finally {
    signal.removeEventListener('abort', stop!);
  }
}

/** A slice of a file is read at once. Larger ranges are read in several. */
export const MAX_SLICE_BYTES = 2 ** 21;
/** So many slices of a file are read at once, because each waits for its server. */
const NUM_SLICES_AT_ONCE = 3;

/** Runs `task` for every item, for several at once. After an error no other begins, and those that run end first. */
export async function forSeveralAtOnce<Item>(
  items: readonly Item[],
  task: (item: Item) => Promise<void>,
): Promise<void> {
  let next = 0;
  const run = async (): Promise<void> => {
    while (next < items.length) {
      await task(items[next++]).catch((error: unknown) => {
        next = items.length;
        throw error;
      });
    }
  };
  const results = await Promise.allSettled(Array.from({length: Math.min(NUM_SLICES_AT_ONCE, items.length)}, run));
  const failed = results.find((result): result is PromiseRejectedResult => result.status === 'rejected');
  if (failed != null) {
    throw failed.reason;
  }
}

/** All bytes in one array, read in slices. */
export async function readAllBytes(bytes: CheckpointBytes, reading: Reading): Promise<Uint8Array> {
  const size = numBytesOf(bytes);
  if (size <= MAX_SLICE_BYTES || ArrayBuffer.isView(bytes)) {
    return readBytes(bytes, 0, size, reading);
  }
  const all = new Uint8Array(size);
  await readInto(all, bytes, 0, reading);
  return all;
}

/** Fills `out` with the bytes from `begin` on, read in slices. */
export async function readInto(
  out: Uint8Array,
  bytes: CheckpointBytes,
  begin: number,
  reading: Reading,
): Promise<void> {
  const firsts = Array.from({length: Math.ceil(out.length / MAX_SLICE_BYTES)}, (_, slice) => slice * MAX_SLICE_BYTES);
  await forSeveralAtOnce(firsts, async (first) => {
    const end = Math.min(first + MAX_SLICE_BYTES, out.length);
    out.set(await readBytes(bytes, begin + first, begin + end, reading), first);
  });
}
