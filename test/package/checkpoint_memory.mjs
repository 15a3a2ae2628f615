/**
 * Reads one of four layers of a shard of 600 MiB by ranges, from a server in a process of its own, and bounds the memory
 * of this process: what the result takes, and at most 128 MiB beside it.
 */
import assert from 'node:assert/strict';
import {fork} from 'node:child_process';
import {createServer} from 'node:http';
import {memoryUsage, resourceUsage} from 'node:process';

const MIB = 2 ** 20;
/** `--print` prints the figures. */
const isPrinted = process.argv.includes('--print');
const [numLayers, E, H, I] = [4, 32, 1024, 800];
const config = {
  model_type: 'mixtral',
  hidden_size: H,
  intermediate_size: I,
  num_local_experts: E,
  num_experts_per_tok: 2,
  hidden_act: 'silu',
};

/** The header of the shard, and where each tensor's data begin. */
function shard() {
  const header = {};
  let end = 0;
  const add = (name, ...shape) => {
    header[name] = {dtype: 'BF16', shape, data_offsets: [end, (end += 2 * shape[0] * shape[1])]};
  };
  for (let layer = 0; layer < numLayers; layer++) {
    const path = `model.layers.${layer}.block_sparse_moe`;
    add(`${path}.gate.weight`, E, H);
    for (let e = 0; e < E; e++) {
      add(`${path}.experts.${e}.w1.weight`, I, H);
      add(`${path}.experts.${e}.w2.weight`, H, I);
      add(`${path}.experts.${e}.w3.weight`, I, H);
    }
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return {head: Buffer.concat([length, json]), size: 8 + json.length + end, header};
}

/** Byte `at` of the data: bfloat16 numbers of size 1 to 2, which repeat after `PERIOD` bytes. */
const byteAt = (at) => (at % 2 === 0 ? (at * 31 + (at >> 11)) & 0x7f : 0x3f) | (at % 2 === 0 ? 0x80 : 0);
const PERIOD = 2 ** 18;

function serve() {
  const {head, size} = shard();
  const repeated = Buffer.from(Array.from({length: PERIOD}, (_, at) => byteAt(at)));
  const server = createServer((request, response) => {
    const [begin, last] = /bytes=(\d+)-(\d+)/.exec(request.headers.range).slice(1).map(Number);
    const body = Buffer.allocUnsafe(last + 1 - begin);
    let filled = head.subarray(begin, last + 1).copy(body);
    while (filled < body.length) {
      filled += repeated.copy(body, filled, (begin + filled - head.length) % PERIOD);
    }
    response
      .writeHead(206, {'content-range': `bytes ${begin}-${last}/${size}`, 'content-length': body.length})
      .end(body);
  });
  server.listen(0, '127.0.0.1', () => process.send(server.address().port));
}

async function read(port, format) {
  const [tf, {moeCheckpoint, remoteCheckpointFile}] = await Promise.all([
    import('tfjs-moe/tf'),
    import('tfjs-moe/checkpoints'),
  ]);
  await tf.setBackend('cpu');
  const file = await remoteCheckpointFile(`http://127.0.0.1:${port}/model.safetensors`);
  assert(file.size > 600 * MIB, `a shard of ${file.size} bytes`);
  const before = memoryUsage().rss;
  const {w1, w2, routerKernel} = await moeCheckpoint(file, config, {layerIndex: 2, format});
  const peak = 1024 * resourceUsage().maxRSS - before;
  const numBytes = [w1, w2]
    .flatMap(({codes, scales}) => [codes, scales])
    .reduce((sum, tensor) => sum + 4 * (tensor?.size ?? 0), 0);
  if (format === 'bfloat16') {
    const {header} = shard();
    const [begin] = header['model.layers.2.block_sparse_moe.experts.31.w2.weight'].data_offsets;
    const words = (await w2.codes.data()).subarray(31 * H * (I / 2));
    for (const word of [0, 1, 1000, H * (I / 2) - 1]) {
      const expected = [0, 1, 2, 3].map((byte) => byteAt(begin + 4 * word + byte));
      assert.deepEqual([...new Uint8Array(Int32Array.of(words[word]).buffer)], expected);
    }
  }
  assert.deepEqual(routerKernel.shape, [H, E]);
  const beside = (peak - numBytes) / MIB;
  isPrinted && console.log(`${format}: ${(numBytes / MIB).toFixed(0)} MiB of weights, at most ${beside.toFixed(0)} MiB beside them`);
  assert(beside < 128, `${beside} MiB beside the weights`);
}

const [, , task, port, format] = process.argv.filter((word) => word !== '--print');
if (task === 'serve') {
  serve();
} else if (task === 'read') {
  await read(Number(port), format);
} else {
  const server = fork(import.meta.filename ?? new URL(import.meta.url).pathname, ['serve']);
  try {
    const at = await new Promise((resolve) => server.once('message', resolve));
    // A process for each, because the peak of a process never falls.
    for (const each of ['bfloat16', 'int4']) {
      const reader = fork(new URL(import.meta.url).pathname, ['read', at, each, ...(isPrinted ? ['--print'] : [])]);
      const code = await new Promise((resolve) => reader.once('exit', resolve));
      assert.equal(code, 0, each);
    }
  } finally {
    server.kill();
  }
}
