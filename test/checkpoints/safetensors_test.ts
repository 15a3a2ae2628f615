import {readSafetensors, type CheckpointTensor, safetensorsValues} from '../../src/checkpoints/files/safetensors';
import {fileOf, safetensorsFile} from '../support/safetensors';

const long = 'x'.repeat(3_000_000);
const headerOf = (tensors: object) => JSON.stringify(tensors);
const bytes = (...values: number[]) => Uint8Array.from(values);
/** Every pattern of 16 bits, little-endian. */
const allHalves = Uint8Array.from({length: 2 ** 17}, (_, i) => (i % 2 === 0 ? (i >> 1) & 255 : i >> 9));

/** The values of the patterns' bits as float32. */
function floatsOf(bitsOf: (half: number) => number): Float32Array {
  const bits = new DataView(new ArrayBuffer(4));
  return Float32Array.from({length: 2 ** 16}, (_, half) => {
    bits.setUint32(0, bitsOf(half) >>> 0);
    return bits.getFloat32(0);
  });
}

function expectSame(actual: Float32Array, expected: Float32Array): void {
  expect(actual.length).toBe(expected.length);
  const wrong = Array.from(actual.keys()).filter((i) => !Object.is(actual[i], expected[i]));
  expect(wrong.map((i) => `${i}: ${actual[i]} for ${expected[i]}`)).toEqual([]);
}

describe('readSafetensors', () => {
  it('gives the tensors of a file, as views of it', async () => {
    const file = safetensorsFile([
      {name: 'a', shape: [2, 2], values: [1, -2, 0.5, 1e-30 * 0]},
      {name: 'none', shape: [0, 3], values: []},
      {name: 'b', shape: [], values: [1.5], dtype: 'F16'},
    ]);
    const tensors = await readSafetensors(file);
    expect([...tensors.keys()]).toEqual(['a', 'none', 'b']);
    expect(tensors.get('a')!.shape).toEqual([2, 2]);
    expect((tensors.get('b')!.bytes as Uint8Array).buffer).toBe(file.buffer);
    expect([...await safetensorsValues(tensors.get('a')!)]).toEqual([1, -2, 0.5, 0]);
    expect([...await safetensorsValues(tensors.get('none')!)]).toEqual([]);
    expect([...await safetensorsValues(tensors.get('b')!)]).toEqual([1.5]);
  });

  it('takes tensors in any order, and dtypes that it cannot read', async () => {
    const header = {
      z: {dtype: 'I64', shape: [1], data_offsets: [2, 10]},
      a: {dtype: 'BF16', shape: [1], data_offsets: [0, 2]},
      packed: {dtype: 'F4', shape: [4], data_offsets: [10, 12]},
    };
    const tensors = await readSafetensors([fileOf(headerOf(header), bytes(0x80, 0xbf, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2))]);
    expect([...await safetensorsValues(tensors.get('a')!)]).toEqual([-1]);
    expect(tensors.get('z')!.dtype).toBe('I64');
    expect([...tensors.get('packed')!.bytes as Uint8Array]).toEqual([1, 2]);
  });

  it('takes a tensor of every dtype whose size it knows, and a tensor of an unknown dtype', async () => {
    const sizes = {
      F4: 4, F6_E2M3: 6, F6_E3M2: 6, BOOL: 8, U8: 8, I8: 8, F8_E4M3: 8, F8_E4M3FNUZ: 8, F8_E5M2: 8, F8_E5M2FNUZ: 8, F8_E8M0: 8, U16: 16,
      I16: 16, F16: 16, BF16: 16, U32: 32, I32: 32, F32: 32, U64: 64, I64: 64, F64: 64, C64: 64,
    };
    for (const [dtype, numBytes] of Object.entries(sizes)) {
      const file = (size: number) => fileOf(headerOf({a: {dtype, shape: [2, 4], data_offsets: [0, size]}}), new Uint8Array(size));
      expect((await readSafetensors(file(numBytes))).get('a')!.bytes).toHaveSize(numBytes);
      await expectAsync(readSafetensors(file(numBytes + 1))).toBeRejectedWithError(
        `Error in readSafetensors: tensor 'a' of files[0] must take ${numBytes} bytes as ${dtype} [2,4], but its data_offsets ` +
        `[0,${numBytes + 1}] span ${numBytes + 1}.`);
    }
    const file = fileOf(headerOf({a: {dtype: 'F4_E2M1X', shape: [3], data_offsets: [0, 5]}}), new Uint8Array(5));
    expect((await readSafetensors(file)).get('a')!.bytes).toHaveSize(5);
  });

  it('reads shared memory, whose values are copies', async () => {
    // The constructor of SharedArrayBuffer is for isolated pages only.
    const {buffer} = new WebAssembly.Memory({initial: 1, maximum: 1, shared: true});
    const file = safetensorsFile([
      {name: 'a', shape: [2], values: [1, -2]},
      {name: 'b', shape: [2], values: [0.5, 3], dtype: 'BF16'},
      {name: 'c', shape: [2], values: [0.5, 3], dtype: 'F16'},
    ]);
    const pad = buffer.byteLength - file.length;
    const padded = new Uint8Array(buffer);
    padded.set(safetensorsFile([{name: 'a', shape: [2], values: [7, 8]}]));
    const shared = new Uint8Array(buffer, pad);
    shared.set(file);
    const tensors = await readSafetensors(shared);
    const values = await Promise.all(['a', 'b', 'c'].map((name) => safetensorsValues(tensors.get(name)!)));
    shared.fill(255);
    expect(values.map((floats) => [...floats])).toEqual([[1, -2], [0.5, 3], [0.5, 3]]);
    expect(values.map((floats) => floats.buffer instanceof ArrayBuffer)).toEqual([true, true, true]);
    // The whole buffer has too many bytes, and its header is read.
    await expectAsync(readSafetensors(buffer)).toBeRejectedWithError(
      `Error in readSafetensors: files[0] must have 8 bytes of data, where its last tensor ends, but has ${buffer.byteLength - 8 - padded[0]}.`);
  });

  it('keeps a tensor of any name', async () => {
    const names = ['__proto__', 'constructor', 'toString', '', '0'];
    const header = names.map((name, i) => `${JSON.stringify(name)}:{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`);
    const tensors = await readSafetensors(fileOf(`{${header.join(',')}}`, bytes(0, 1, 2, 3, 4)));
    expect(names.map((name) => (tensors.get(name)!.bytes as Uint8Array)[0])).toEqual([0, 1, 2, 3, 4]);
    expect(Object.keys(Object.prototype)).toEqual([]);
  });

  const deep = '['.repeat(100_000) + ']'.repeat(100_000);
  const offsets = '"data_offsets":[0,8]';
  const hostile: Array<[name: string, header: string, message: string]> = [
    ['a dtype of every object', `{"a":{"dtype":"constructor","shape":[2],${offsets}}}`, "the object {dtype: 'constructor', shape: [2], data_offsets: [0, 8]}"],
    ['a dtype __proto__', `{"a":{"dtype":"__proto__","shape":[2],${offsets}}}`, "the object {dtype: '__proto__', shape: [2], data_offsets: [0, 8]}"],
    ['fields in __proto__', `{"a":{"__proto__":{"dtype":"F32","shape":[2],${offsets}}}}`,
      "the object {__proto__: {dtype: 'F32', shape: […], data_offsets: […]}}"],
    ['nested arrays', `{"a":${deep}}`, 'the array [[[…]]]'],
    ['a shape of nested arrays', `{"a":{"dtype":"F32","shape":${deep},${offsets}}}`, "the object {dtype: 'F32', shape: [[…]], data_offsets: [0, 8]}"],
    ['a dtype of megabytes', `{"a":{"dtype":"${long.toUpperCase()}","shape":[2],${offsets}}}`,
      `the object {dtype: '${'X'.repeat(60)}…', shape: [2], data_offsets: [0, 8]}`],
    ['a field of megabytes', `{"a":{"${long}":1}}`, `the object {${'x'.repeat(60)}…: 1}`],
    ['many fields', `{"a":{${Array.from({length: 100_000}, (_, i) => `"f${i}":${i}`).join(',')}}}`,
      'the object {f0: 0, f1: 1, f2: 2, f3: 3, f4: 4, f5: 5, f6: 6, f7: 7, …}'],
    ['null', '{"a":null}', 'null'],
    ['a negative length', `{"a":{"dtype":"F32","shape":[-2],${offsets}}}`, "the object {dtype: 'F32', shape: [-2], data_offsets: [0, 8]}"],
    ['a length past the exact integers', `{"a":{"dtype":"F32","shape":[1e300],${offsets}}}`, "the object {dtype: 'F32', shape: [1e+300], data_offsets: [0, 8]}"],
    ['an offset past them', '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,1e17]}}', "the object {dtype: 'F32', shape: [2], data_offsets: [0, 100000000000000000]}"],
    ['offsets without end', `{"a":{"dtype":"F32","shape":[2],"data_offsets":[${'0,'.repeat(200_000)}8]}}`,
      "the object {dtype: 'F32', shape: [2], data_offsets: [0, 0, 0, 0, 0, 0, 0, 0, …]}"],
  ];
  hostile.forEach(([name, header, given]) => {
    it(`says in a short sentence what is wrong with ${name}`, async () => {
      await expectAsync(readSafetensors(fileOf(header, new Uint8Array(8)))).toBeRejectedWithError(
        `Error in readSafetensors: tensor 'a' of files[0] must have a dtype, a shape and two ascending data_offsets, but is ${given}.`);
    });
  });

  const one = {dtype: 'F32', shape: [2], data_offsets: [0, 8]};
  const good = safetensorsFile([{name: 'x', shape: [1], values: [1]}]);

  it('says that a header is too long, before it is read', async () => {
    const file = new Uint8Array(8 + 100_000_001);
    new DataView(file.buffer).setUint32(0, 100_000_001, true);
    await expectAsync(readSafetensors(file)).toBeRejectedWithError(
      'Error in readSafetensors: files[0] must have a header of at most 100000000 bytes, but it has 100000001.');
  });

  const errors: Array<[name: string, files: unknown, message: string]> = [
    ['no files', [], 'files must have at least one file, but is empty.'],
    ['no bytes', [good, 'model.safetensors'], "files[1] must be an ArrayBuffer, a Uint8Array, a Blob or a file of remoteCheckpointFile, but is the string 'model.safetensors'."],
    ['numbers', [[1, 2]], 'files[0] must be an ArrayBuffer, a Uint8Array, a Blob or a file of remoteCheckpointFile, but is the array [1, 2].'],
    ['a short file', bytes(1, 2, 3), "files[0] must begin with the 8 bytes of its header's length, but has 3 bytes."],
    ['half a header', good.subarray(0, 20),
      `files[0] must have a header of ${good[0]} bytes, as its first 8 bytes say, but has 12 after them. Is it a whole safetensors file?`],
    ['another format', new TextEncoder().encode('<!doctype html><title>404</title>'),
      'files[0] must have a header of 8104636974849335000 bytes, as its first 8 bytes say, but has 25 after them. Is it a whole safetensors file?'],
    ['no JSON', fileOf('{'), 'files[0] must have a header that is a JSON object. Is it a safetensors file?'],
    ['no object', fileOf('[]'), 'files[0] must have a header that is a JSON object. Is it a safetensors file?'],
    ['no dtype', fileOf('{"a":{"shape":[1]}}'),
      `tensor 'a' of files[0] must have a dtype, a shape and two ascending data_offsets, but is the object {shape: [1]}.`],
    ['offsets that descend', fileOf(headerOf({a: {...one, data_offsets: [8, 0]}})),
      `tensor 'a' of files[0] must have a dtype, a shape and two ascending data_offsets, but is the object {dtype: 'F32', shape: [2], data_offsets: [8, 0]}.`],
    ['a length that does not fit', fileOf(headerOf({a: {...one, shape: [3]}}), bytes(0, 0, 0, 0, 0, 0, 0, 0)),
      "tensor 'a' of files[0] must take 12 bytes as F32 [3], but its data_offsets [0,8] span 8."],
    ['tensors that overlap', fileOf(headerOf({a: one, b: {...one, data_offsets: [4, 12]}}), new Uint8Array(12)),
      "tensor 'b' of files[0] must begin at byte 8 of the data, where the tensor before it ends, but its data_offsets are [4,12]."],
    ['a gap', fileOf(headerOf({a: {...one, data_offsets: [4, 12]}}), new Uint8Array(12)),
      "tensor 'a' of files[0] must begin at byte 0 of the data, where the tensor before it ends, but its data_offsets are [4,12]."],
    ['half the data', fileOf(headerOf({a: one}), new Uint8Array(7)), 'files[0] must have 8 bytes of data, where its last tensor ends, but has 7.'],
    ['a byte order mark', fileOf('\uFEFF{}'), 'files[0] must have a header that is a JSON object. Is it a safetensors file?'],
    ['bytes that are no UTF-8', bytes(4, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0xff, 0xff, 0x7d),
      'files[0] must have a header that is a JSON object. Is it a safetensors file?'],
    ['JSON without end', fileOf('['.repeat(100_000)), 'files[0] must have a header that is a JSON object. Is it a safetensors file?'],
    ['a name of megabytes', fileOf(headerOf({[long]: 1})),
      `tensor '${'x'.repeat(200)}…' of files[0] must have a dtype, a shape and two ascending data_offsets, but is 1.`],
    ['many lengths', fileOf(headerOf({a: {...one, shape: new Array<number>(100_000).fill(3)}}), new Uint8Array(8)),
      "tensor 'a' of files[0] must take Infinity bytes as F32 [3,3,3,3,3,3,3,3,…], but its data_offsets [0,8] span 8."],
    ['no bytes where none are to be',  fileOf(headerOf({a: {...one, shape: [...new Array<number>(30).fill(2 ** 53 - 1), 0]}}), new Uint8Array(8)),
      "tensor 'a' of files[0] must take 0 bytes as F32 [9007199254740991,9007199254740991,9007199254740991,9007199254740991," +
      '9007199254740991,9007199254740991,9007199254740991,9007199254740991,…], but its data_offsets [0,8] span 8.'],
    ['nothing', null, 'files[0] must be an ArrayBuffer, a Uint8Array, a Blob or a file of remoteCheckpointFile, but is null.'],
    ['an object', {byteLength: 1e15}, 'files[0] must be an ArrayBuffer, a Uint8Array, a Blob or a file of remoteCheckpointFile, but is the object {byteLength: 1000000000000000}.'],
    ['a hole in a list', new Array(1), 'files[0] must be an ArrayBuffer, a Uint8Array, a Blob or a file of remoteCheckpointFile, but is undefined.'],
    ['a tensor twice', [good, good], "tensor 'x' must be in one file, but is in files[0] and in files[1]."],
  ];
  errors.forEach(([name, files, message]) => {
    it(`says what is wrong with ${name}`, async () => {
      await expectAsync(readSafetensors(files as Uint8Array)).toBeRejectedWithError(`Error in readSafetensors: ${message}`);
    });
  });
});

describe('safetensorsValues', () => {
  const read = (dtype: string, values: Uint8Array, size: number): Promise<Float32Array> =>
    safetensorsValues({dtype, shape: [size], bytes: values} satisfies CheckpointTensor);

  it('gives every BF16 exactly', async () => {
    expectSame(await read('BF16', allHalves, 2 ** 16), floatsOf((half) => half << 16));
  });

  it('gives every F16 exactly', async () => {
    // By bits, but for subnormals, which are multiples of 2^-24.
    const normals = floatsOf((half) => {
      const exponent = (half >> 10) & 31;
      return ((half & 0x8000) << 16) | ((exponent === 31 ? 255 : exponent + 112) << 23) | ((half & 1023) << 13);
    });
    const expected = normals.map((value, half) =>
      ((half >> 10) & 31) === 0 ? ((half & 0x8000 ? -1 : 1) * (half & 1023)) / 16777216 : value);
    expectSame(await read('F16', allHalves, 2 ** 16), expected);
    expect(expected[0x3c00]).toBe(1);
    expect(expected[0x7bff]).toBe(65504);
    expect(expected[0x8001]).toBe(-5.960464477539063e-8);
  });

  it('gives F32 as it is, wherever it lies', async () => {
    const values = Float32Array.of(1.1, -0, NaN, Infinity, 1e-45);
    const file = new Uint8Array(21);
    file.set(new Uint8Array(values.buffer), 1);
    expectSame(await read('F32', file.subarray(1), 5), values);
  });

  const tensor = {dtype: 'F16', shape: [1], bytes: bytes(1, 2)};
  const whole = 'a dtype, a shape and bytes in a Uint8Array or a Blob';
  const unreadable: Array<[name: string, tensor: unknown, message: string]> = [
    ['a dtype that it cannot read', {...tensor, dtype: 'F8_E4M3'}, 'F32 or F16 or BF16, but is F8_E4M3.'],
    ['a dtype of every object', {...tensor, dtype: 'constructor'}, 'F32 or F16 or BF16, but is constructor.'],
    ['a dtype of megabytes', {...tensor, dtype: long}, `F32 or F16 or BF16, but is ${long.slice(0, 60)}….`],
    ['too many bytes', {...tensor, bytes: bytes(1, 2, 3)}, '2 bytes as F16 [1], but is 3 bytes.'],
    ['no bytes', {...tensor, bytes: bytes()}, '2 bytes as F16 [1], but is 0 bytes.'],
    ['a shape past all memory', {...tensor, shape: [1e15, 1e15]}, '2e+30 bytes as F16 [1000000000000000,1000000000000000], but is 2 bytes.'],
    ['a negative length', {...tensor, shape: [-1]}, `${whole}, but is the object {dtype: 'F16', shape: [-1], bytes: a Uint8Array}.`],
    ['a length that is no number', {...tensor, shape: [NaN]}, `${whole}, but is the object {dtype: 'F16', shape: [NaN], bytes: a Uint8Array}.`],
    ['no shape', {...tensor, shape: 1}, `${whole}, but is the object {dtype: 'F16', shape: 1, bytes: a Uint8Array}.`],
    ['values for bytes', {...tensor, bytes: Float32Array.of(1)}, `${whole}, but is the object {dtype: 'F16', shape: [1], bytes: a Float32Array}.`],
    ['a buffer for bytes', {...tensor, bytes: new ArrayBuffer(2)}, `${whole}, but is the object {dtype: 'F16', shape: [1], bytes: an ArrayBuffer}.`],
    ['null', null, `${whole}, but is null.`],
    ['nothing', undefined, `${whole}, but is undefined.`],
    ['a name', 'model.norm.weight', `${whole}, but is the string 'model.norm.weight'.`],
    ['a list', [], `${whole}, but is the array [].`],
  ];
  unreadable.forEach(([name, given, message]) => {
    it(`says what is wrong with ${name}`, async () => {
      await expectAsync(safetensorsValues(given as CheckpointTensor)).toBeRejectedWithError(`Error in safetensorsValues: tensor must be ${message}`);
    });
  });
});
