/** Files of a web server, read by requests of ranges. */
import {assert, describeValue} from '../../arguments/checks';
import type {SliceableFile} from './checkpoint_file';

export type RemoteCheckpointFileOptions = {
  /** Options of each request, such as `{headers: {Authorization: 'Bearer …'}}`. */
  requestInit?: RequestInit | null;
  /** Used in place of the global fetch. */
  fetchFunc?: typeof fetch | null;
  /** Calls the first request off. */
  signal?: AbortSignal | null;
};

const opName = 'remoteCheckpointFile';

/**
 * A file of a web server of which only ranges are downloaded, for the functions that take files of checkpoints.
 *
 * ```js
 * import {readSafetensors, remoteCheckpointFile} from 'tfjs-moe/checkpoints';
 * // A stand-in for a server: it answers each request of a range from these bytes.
 * const bytes = Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d);
 * const file = await remoteCheckpointFile('https://example.com/model.safetensors', {
 *   fetchFunc: async (_, options) => {
 *     const range = new Headers(options?.headers).get('range') ?? ''; // 'bytes=0-1'
 *     const [begin, end] = range.replace('bytes=', '').split('-').map(Number);
 *     const headers = {'content-range': `bytes ${begin}-${end}/${bytes.length}`};
 *     return new Response(bytes.slice(begin, end + 1), {status: 206, headers});
 *   },
 * });
 * file.size; // => 10
 * (await readSafetensors(file)).size; // => 0
 * ```
 *
 * A file of the Hugging Face Hub is also `await downloadFile({repo, path})` of @huggingface/hub, a Blob whose slices
 * are such requests.
 *
 * @param url  Where the file is. Its server must answer requests of ranges, and for other origins allow them by CORS.
 * @param options  {@link RemoteCheckpointFileOptions}.
 * @returns A promise of `{size, slice(start, end)}`; slices have arrayBuffer(), as those of a Blob. Nothing is cached.
 *
 * @throws if the server answers with an error, or without regard to the range, or does not say how long the file is.
 */
export async function remoteCheckpointFile(
  url: string | URL,
  {requestInit, fetchFunc, signal}: RemoteCheckpointFileOptions = {},
): Promise<SliceableFile> {
  assert(
    typeof url === 'string' || url instanceof URL,
    opName,
    () => `url must be a string or a URL, but is ${describeValue(url)}.`,
  );
  const address = String(url);
  const request = (init: RequestInit, range?: string): Promise<Response> => {
    const headers = new Headers(requestInit?.headers);
    if (range != null) {
      headers.set('Range', range);
    }
    return (fetchFunc ?? fetch)(address, {...requestInit, ...init, headers});
  };
  const requestRange = async (begin: number, end: number, rangeSignal?: AbortSignal | null): Promise<Response> => {
    const response = await request({signal: rangeSignal ?? null}, `bytes=${begin}-${end - 1}`);
    if (response.status !== 206) {
      await response.body?.cancel();
      const {status, statusText} = response;
      const what =
        status === 200
          ? 'the whole file: its server knows no ranges. Fetch the file, and pass its bytes or its Blob'
          : `status ${[status, statusText].filter((part) => part !== '').join(' ')}`;
      throw new Error(
        `Error in ${opName}: ${address} must answer a request of a range (status 206), but gives ${what}.`,
      );
    }
    return response;
  };

  const first = await requestRange(0, 1, signal);
  await first.body?.cancel();
  const size = sizeInRange(first) ?? (await sizeByHead(() => request({method: 'HEAD', signal: signal ?? null})));
  assert(
    size != null,
    opName,
    () =>
      `${address} must say how long it is, by Content-Range or Content-Length. For another origin, its server must ` +
      'name Content-Range in Access-Control-Expose-Headers.',
  );
  const readRange = async (begin: number, end: number, rangeSignal?: AbortSignal | null): Promise<ArrayBuffer> => {
    const response = await requestRange(begin, end, rangeSignal);
    const given = response.headers.get('Content-Range');
    const isAsked = given == null || given.startsWith(`bytes ${begin}-${end - 1}/`);
    if (!isAsked || (sizeInRange(response) ?? size) !== size) {
      await response.body?.cancel();
      throw new Error(
        `Error in ${opName}: ${address} must give bytes ${begin}-${end - 1}/${size}, but gives ${given}. ` +
          'If its size is another, the file was changed.',
      );
    }
    return response.arrayBuffer();
  };
  return {
    size: size!,
    slice: (start, end) => ({
      arrayBuffer: async (sliceSignal?: AbortSignal | null) =>
        start >= end ? new ArrayBuffer(0) : readRange(start, end, sliceSignal),
    }),
  };
}

/** The size of the whole file, which follows the slash: `bytes 0-0/1234`. */
function sizeInRange({headers}: Response): number | undefined {
  const [, size] = /\/(\d+)$/.exec(headers.get('Content-Range') ?? '') ?? [];
  return size == null ? undefined : Number(size);
}

async function sizeByHead(head: () => Promise<Response>): Promise<number | undefined> {
  const {ok, headers} = await head();
  const length = headers.get('Content-Length');
  return ok && length != null ? Number(length) : undefined;
}
