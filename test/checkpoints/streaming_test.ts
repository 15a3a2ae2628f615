/** How files are read: only what is asked for, in slices, with progress, and called off without a trace. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {
  loadMoeCheckpoint,
  moeCheckpoint,
  moeLayerConfig,
  readSafetensors,
  remoteCheckpointFile,
  type SliceableFile,
} from '../../src/checkpoints/index';
import * as tf from '../../src/tf';
import {block, type CheckpointCase, checkpointCases, sizes, w1, writtenTensors} from '../support/checkpoint_blocks';
import {expectFloats} from '../support/expect';
import {safetensorsFile} from '../support/safetensors';

const {H, E, I} = sizes;
const caseOf = (name: string): CheckpointCase => checkpointCases.find((checkpoint) => checkpoint.name === name)!;
const fileOf = (checkpoint: CheckpointCase) => safetensorsFile(writtenTensors(checkpoint));

/** A file of these bytes that notes which ranges of it are read. */
function watchedFile(bytes: Uint8Array) {
  const ranges: Array<[number, number]> = [];
  const file: SliceableFile = {
    size: bytes.length,
    slice: (start, end) => ({
      arrayBuffer: () => {
        ranges.push([start, end]);
        return Promise.resolve(bytes.slice(start, end).buffer as ArrayBuffer);
      },
    }),
  };
  return {file, ranges};
}

/** A web server of one file: its requests, and answers by the Range header. */
function serverOf(bytes: Uint8Array, {knowsRanges = true, exposesRange = true, status = 206} = {}) {
  const requests: Array<{method: string; range: string | null; authorization: string | null}> = [];
  const fetchFunc = ((_url: string, init: RequestInit) => {
    init.signal?.throwIfAborted();
    const headers = new Headers(init.headers);
    const range = headers.get('range');
    const method = init.method ?? 'GET';
    requests.push({method, range, authorization: headers.get('authorization')});
    if (method === 'HEAD') {
      return Promise.resolve(new Response(null, {status: 200, headers: {'content-length': String(bytes.length)}}));
    }
    if (status !== 206) {
      return Promise.resolve(new Response('no', {status, statusText: 'Not Found'}));
    }
    if (!knowsRanges) {
      return Promise.resolve(new Response(bytes.slice(), {status: 200}));
    }
    const [begin, last] = /(\d+)-(\d+)/.exec(range!)!.slice(1).map(Number);
    const answered = exposesRange ? {'content-range': `bytes ${begin}-${last}/${bytes.length}`} : undefined;
    return Promise.resolve(new Response(bytes.slice(begin, last + 1), {status: 206, headers: answered}));
  }) as unknown as typeof fetch;
  return {fetchFunc, requests};
}

const url = 'https://example.com/model.safetensors';

describeWithFlags('moeCheckpoint of files in slices', ALL_ENVS, () => {
  it('reads Blobs, shards of different kinds, and files of a server', async () => {
    const checkpoint = caseOf('qwen2_moe');
    const tensors = writtenTensors(checkpoint);
    const [bytes, blob, remote] = [0, 1, 2].map((shard) => safetensorsFile(tensors.filter((_, i) => i % 3 === shard)));
    const file = await remoteCheckpointFile(url, serverOf(remote));
    const {w1: experts, options} = await moeCheckpoint(
      [bytes, new Blob([blob as BlobPart]), file], checkpoint.config, {layerIndex: 3, format: 'float32'});
    await expectFloats(experts, w1, 'w1');
    await expectFloats(options.sharedExperts!.w2, block.sharedDown, 'shared w2');
  });

  it('reads the header and then the bytes of the block, once each', async () => {
    const {config, ...checkpoint} = caseOf('mixtral');
    const written = writtenTensors(checkpoint);
    // Larger than the gap that is read over.
    const other = (name: string) => ({name, shape: [2 ** 17], values: new Array<number>(2 ** 17).fill(0.5), dtype: 'F32' as const});
    const bytes = safetensorsFile([other('model.embed_tokens.weight'), ...written, other('lm_head.weight')]);
    const {file, ranges} = watchedFile(bytes);
    const fractions: number[] = [];
    const {w1: experts} = await moeCheckpoint(
      file, config, {layerIndex: 3, format: 'float32', onProgress: (fraction) => fractions.push(fraction)});
    await expectFloats(experts, w1, 'w1');
    const [length, header, ...data] = ranges;
    expect(length).toEqual([0, 8]);
    expect(header[0]).toBe(8);
    const dataBegin = header[1];
    // One tensor of another layer lies between those of the block, and is read over.
    const blockBytes = written.reduce((sum, {values}) => sum + 2 * values.length, 0);
    expect(data).toEqual([[dataBegin + 2 ** 19, dataBegin + 2 ** 19 + blockBytes]]);
    expect(fractions.length).toBeGreaterThan(5);
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(fractions[fractions.length - 1]).toBe(1);
  });

  it('reads headers once for many layers', async () => {
    const {config, ...checkpoint} = caseOf('mixtral');
    const {file, ranges} = watchedFile(safetensorsFile(writtenTensors(checkpoint)));
    const tensors = await readSafetensors(file);
    expect(ranges.length).toBe(2);
    await moeCheckpoint(tensors, config, {layerIndex: 3});
    await moeCheckpoint(tensors, config, {layerIndex: 3});
    expect(ranges.length).toBe(4);
  });

  it('stops when it is called off, and leaves no tensor and the layer as it was', async () => {
    const {config, ...checkpoint} = caseOf('gpt_oss');
    const bytes = safetensorsFile(writtenTensors(checkpoint));
    const layer = tf.layers.mixtureOfExperts({...moeLayerConfig(config), inputShape: [H]});
    tf.sequential({layers: [layer]});
    const before = tf.memory().numTensors;
    for (const numReads of [0, 1, 2, 3]) {
      const controller = new AbortController();
      let reads = 0;
      const abort = () => {
        if (reads++ >= numReads) {
          controller.abort(new Error('enough'));
        }
      };
      const file: SliceableFile = {
        size: bytes.length,
        slice: (start, end) => ({
          arrayBuffer: () => {
            abort();
            return Promise.resolve(bytes.slice(start, end).buffer as ArrayBuffer);
          },
        }),
      };
      const {signal} = controller;
      await expectAsync(moeCheckpoint(numReads === 3 ? bytes : file, config, {layerIndex: 3, signal, onProgress: numReads === 3 ? abort : null}))
        .toBeRejectedWithError('enough');
      await expectAsync(loadMoeCheckpoint(layer, bytes, config, {layerIndex: 3, signal})).toBeRejectedWithError('enough');
    }
    expect(tf.memory().numTensors).toBe(before);
    const place = layer.weights.findIndex(({originalName}) => originalName.endsWith('w1'));
    await expectFloats(layer.getWeights()[place], new Array<number>(2 * E * I * H).fill(0), 'w1');
  });

  it('does not wait for slices that know no signal', async () => {
    const {config, ...checkpoint} = caseOf('gpt_oss');
    const bytes = safetensorsFile(writtenTensors(checkpoint));
    const tensors = await readSafetensors(bytes);
    const before = tf.memory().numTensors;
    const controller = new AbortController();
    const silent: SliceableFile = {
      size: bytes.length,
      slice: () => ({
        arrayBuffer: () => {
          setTimeout(() => controller.abort(new Error('enough')));
          return new Promise<ArrayBuffer>(() => undefined);
        },
      }),
    };
    for (const [name, tensor] of tensors) {
      tensors.set(name, {...tensor, bytes: {...silent, size: tensor.bytes instanceof Uint8Array ? tensor.bytes.length : tensor.bytes.size}});
    }
    await expectAsync(moeCheckpoint(tensors, config, {layerIndex: 3, signal: controller.signal})).toBeRejectedWithError('enough');
    expect(tf.memory().numTensors).toBe(before);
  });

  it('leaves no tensor when a file ends early or a callback throws', async () => {
    const {config, ...checkpoint} = caseOf('mixtral');
    const bytes = safetensorsFile(writtenTensors(checkpoint));
    const before = tf.memory().numTensors;
    const short: SliceableFile = {
      size: bytes.length,
      slice: (start, end) => ({
        arrayBuffer: () => Promise.resolve(bytes.slice(start, start > 8 ? end - 1 : end).buffer as ArrayBuffer),
      }),
    };
    await expectAsync(moeCheckpoint(short, config, {layerIndex: 3})).toBeRejectedWithError(
      /^Error in moeCheckpoint: a file must give bytes \d+ to \d+ of a tensor or header, but gave \d+ bytes\.$/);
    const broken: SliceableFile = {...short, slice: (start, end) => ({
      arrayBuffer: () => start > 8 ? Promise.reject(new Error('disk')) : Promise.resolve(bytes.slice(start, end).buffer as ArrayBuffer),
    })};
    await expectAsync(moeCheckpoint(broken, config, {layerIndex: 3})).toBeRejectedWithError('disk');
    const onProgress = () => {
      throw new Error('no progress');
    };
    await expectAsync(moeCheckpoint(bytes, config, {layerIndex: 3, onProgress})).toBeRejectedWithError('no progress');
    expect(tf.memory().numTensors).toBe(before);
  });

  it('quantizes on the way in, like moeQuantizeWeights', async () => {
    const {config} = caseOf('mixtral');
    const [hidden, intermediate] = [32, 16];
    const shapes = {gate: [E, hidden], w1: [intermediate, hidden], w3: [intermediate, hidden], w2: [hidden, intermediate]};
    const tensors = Object.entries(shapes).flatMap(([name, shape]) => {
      const names = name === 'gate' ? ['gate'] : Array.from({length: E}, (_, e) => `experts.${e}.${name}`);
      return names.map((each, n) => ({
        name: `model.layers.0.block_sparse_moe.${each}.weight`, shape, dtype: 'BF16' as const,
        values: Array.from({length: shape[0] * shape[1]}, (_, i) => ((i * 37 + n * 11) % 64 - 32) / 16),
      }));
    });
    const file = new Blob([safetensorsFile(tensors) as BlobPart]);
    const small = {...config, hidden_size: hidden, intermediate_size: intermediate};
    const floats = await moeCheckpoint(file, small, {layerIndex: 0, format: 'float32'});
    for (const options of [
      {format: 'int4', scaleFormat: 'float16'}, {format: 'int8', groupSize: 16, symmetric: false}, {format: 'fp4'},
      {format: 'bfloat16'}, {format: 'float16'},
    ] as const) {
      const {w1: first, w2: second} = await moeCheckpoint(file, small, {layerIndex: 0, ...options});
      for (const [given, wanted] of [[first, floats.w1], [second, floats.w2]] as Array<[tf.QuantizedWeights, tf.Tensor3D]>) {
        const expected = tf.moeQuantizeWeights(wanted, options);
        expect(Object.keys(given).sort()).toEqual(Object.keys(expected).sort());
        for (const [field, value] of Object.entries(expected)) {
          const actual = given[field as keyof tf.QuantizedWeights];
          if (value instanceof tf.Tensor) {
            expect((actual as tf.Tensor).shape).toEqual(value.shape);
            expect([...await (actual as tf.Tensor).data()]).withContext(`${options.format} ${field}`).toEqual([...await value.data()]);
          } else {
            // A group has no more than a row.
            const wantedValue = field === 'groupSize' ? Math.min(value as number, wanted.shape[2]) : value;
            expect(actual).withContext(field).toEqual(wantedValue);
          }
        }
      }
      const layer = tf.layers.mixtureOfExperts({
        ...moeLayerConfig(small), inputShape: [hidden], expertFormat: options.format,
        ...('scaleFormat' in options && {expertScaleFormat: options.scaleFormat}),
        ...('groupSize' in options && {expertGroupSize: options.groupSize, useExpertOffsets: true}),
      });
      tf.sequential({layers: [layer]});
      await loadMoeCheckpoint(layer, file, small, {layerIndex: 0});
      const codes = layer.weights.findIndex(({originalName}) => originalName.endsWith('w2_codes'));
      expect([...await layer.getWeights()[codes].data()]).toEqual([...await (second as tf.QuantizedWeights).codes.data()]);
    }
  });
});

describe('remoteCheckpointFile', () => {
  const bytes = Uint8Array.from({length: 100}, (_, i) => i);

  it('asks for ranges with the headers given', async () => {
    const {fetchFunc, requests} = serverOf(bytes);
    const file = await remoteCheckpointFile(new URL(url), {fetchFunc, requestInit: {headers: {Authorization: 'Bearer me'}}});
    expect(file.size).toBe(100);
    expect([...new Uint8Array(await file.slice(10, 13).arrayBuffer())]).toEqual([10, 11, 12]);
    expect((await file.slice(5, 5).arrayBuffer()).byteLength).toBe(0);
    expect(requests).toEqual([
      {method: 'GET', range: 'bytes=0-0', authorization: 'Bearer me'}, {method: 'GET', range: 'bytes=10-12', authorization: 'Bearer me'},
    ]);
  });

  it('asks for the length where the server does not show it with a range', async () => {
    const {fetchFunc, requests} = serverOf(bytes, {exposesRange: false});
    expect((await remoteCheckpointFile(url, {fetchFunc})).size).toBe(100);
    expect(requests.map(({method}) => method)).toEqual(['GET', 'HEAD']);
  });

  it('says what is wrong', async () => {
    const begin = `Error in remoteCheckpointFile: ${url} must answer a request of a range (status 206), but gives `;
    await expectAsync(remoteCheckpointFile(url, serverOf(bytes, {knowsRanges: false}))).toBeRejectedWithError(
      `${begin}the whole file: its server knows no ranges. Fetch the file, and pass its bytes or its Blob.`);
    await expectAsync(remoteCheckpointFile(url, serverOf(bytes, {status: 404}))).toBeRejectedWithError(`${begin}status 404 Not Found.`);
    const silent = (() => Promise.resolve(new Response(null, {status: 206}))) as unknown as typeof fetch;
    await expectAsync(remoteCheckpointFile(url, {fetchFunc: silent})).toBeRejectedWithError(
      `Error in remoteCheckpointFile: ${url} must say how long it is, by Content-Range or Content-Length. For another origin, its ` +
      'server must name Content-Range in Access-Control-Expose-Headers.');
    await expectAsync(remoteCheckpointFile(7 as unknown as string)).toBeRejectedWithError(
      'Error in remoteCheckpointFile: url must be a string or a URL, but is 7.');
    await expectAsync(remoteCheckpointFile(url, {...serverOf(bytes), signal: AbortSignal.abort(new Error('no'))})).toBeRejectedWithError('no');
  });

  it('refuses another range, and a file that was changed', async () => {
    const bytes = safetensorsFile(writtenTensors(caseOf('mixtral')));
    for (const [range, given] of [[`bytes 1-8/${bytes.length}`, `bytes 1-8/${bytes.length}`], ['bytes 0-7/9', 'bytes 0-7/9']]) {
      let requests = 0;
      const {fetchFunc} = serverOf(bytes);
      const other = ((address: string, init: RequestInit) => requests++ === 0
        ? fetchFunc(address, init)
        : Promise.resolve(new Response(bytes.slice(0, 8), {status: 206, headers: {'content-range': range}}))) as typeof fetch;
      const file = await remoteCheckpointFile(url, {fetchFunc: other});
      await expectAsync(readSafetensors(file)).toBeRejectedWithError(
        `Error in remoteCheckpointFile: ${url} must give bytes 0-7/${bytes.length}, but gives ${given}. ` +
        'If its size is another, the file was changed.');
    }
  });

  it('calls a slice off', async () => {
    const controller = new AbortController();
    const {config, ...checkpoint} = caseOf('mixtral');
    const server = serverOf(fileOf({config, ...checkpoint}));
    const file = await remoteCheckpointFile(url, server);
    const reading = readSafetensors(file, {signal: controller.signal});
    controller.abort(new Error('stop'));
    await expectAsync(reading).toBeRejectedWithError('stop');
  });
});
