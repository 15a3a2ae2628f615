import {readSafetensors, type SafetensorsTensor, safetensorsValues} from '../../src/layers/safetensors';
import {fileOf, safetensorsFile} from '../support/safetensors';

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
  it('gives the tensors of a file, as views of it', () => {
    const file = safetensorsFile([
      {name: 'a', shape: [2, 2], values: [1, -2, 0.5, 1e-30 * 0]},
      {name: 'none', shape: [0, 3], values: []},
      {name: 'b', shape: [], values: [1.5], dtype: 'F16'},
    ]);
    const tensors = readSafetensors(file);
    expect([...tensors.keys()]).toEqual(['a', 'none', 'b']);
    expect(tensors.get('a')!.shape).toEqual([2, 2]);
    expect(tensors.get('b')!.bytes.buffer).toBe(file.buffer);
    expect([...safetensorsValues(tensors.get('a')!)]).toEqual([1, -2, 0.5, 0]);
    expect([...safetensorsValues(tensors.get('none')!)]).toEqual([]);
    expect([...safetensorsValues(tensors.get('b')!)]).toEqual([1.5]);
  });

  it('takes tensors in any order, and dtypes that it cannot read', () => {
    const header = {
      z: {dtype: 'I64', shape: [1], data_offsets: [2, 10]},
      a: {dtype: 'BF16', shape: [1], data_offsets: [0, 2]},
      packed: {dtype: 'F4', shape: [4], data_offsets: [10, 12]},
    };
    const tensors = readSafetensors([fileOf(headerOf(header), bytes(0x80, 0xbf, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2))]);
    expect([...safetensorsValues(tensors.get('a')!)]).toEqual([-1]);
    expect(tensors.get('z')!.dtype).toBe('I64');
    expect([...tensors.get('packed')!.bytes]).toEqual([1, 2]);
  });

  const one = {dtype: 'F32', shape: [2], data_offsets: [0, 8]};
  const good = safetensorsFile([{name: 'x', shape: [1], values: [1]}]);
  const errors: Array<[name: string, files: unknown, message: string]> = [
    ['no files', [], 'files must have at least one file, but is empty.'],
    ['no bytes', [good, 'model.safetensors'], 'files[1] must be an ArrayBuffer or a Uint8Array, but is model.safetensors.'],
    ['numbers', [[1, 2]], 'files[0] must be an ArrayBuffer or a Uint8Array, but is Array.'],
    ['a short file', bytes(1, 2, 3), "files[0] must begin with the 8 bytes of its header's length, but has 3 bytes."],
    ['half a header', good.subarray(0, 20),
      `files[0] must have a header of ${good[0]} bytes, as its first 8 say, but has 12 after them. Is it a whole safetensors file?`],
    ['another format', new TextEncoder().encode('<!doctype html><title>404</title>'),
      'files[0] must have a header of 8104636974849335000 bytes, as its first 8 say, but has 25 after them. Is it a whole safetensors file?'],
    ['no JSON', fileOf('{'), 'files[0] must have a header that is a JSON object. Is it a safetensors file?'],
    ['no object', fileOf('[]'), 'files[0] must have a header that is a JSON object. Is it a safetensors file?'],
    ['no dtype', fileOf('{"a":{"shape":[1]}}'),
      `tensor 'a' of files[0] must have a dtype, a shape and two ascending data_offsets, but is {"shape":[1]}.`],
    ['offsets that descend', fileOf(headerOf({a: {...one, data_offsets: [8, 0]}})),
      `tensor 'a' of files[0] must have a dtype, a shape and two ascending data_offsets, but is {"dtype":"F32","shape":[2],"data_offsets":[8,0]}.`],
    ['a length that does not fit', fileOf(headerOf({a: {...one, shape: [3]}}), bytes(0, 0, 0, 0, 0, 0, 0, 0)),
      "tensor 'a' of files[0] must take 12 bytes as F32 [3], but its data_offsets [0,8] span 8."],
    ['tensors that overlap', fileOf(headerOf({a: one, b: {...one, data_offsets: [4, 12]}}), new Uint8Array(12)),
      "tensor 'b' of files[0] must begin at byte 8 of the data, where the one before it ends, but its data_offsets are [4,12]."],
    ['a gap', fileOf(headerOf({a: {...one, data_offsets: [4, 12]}}), new Uint8Array(12)),
      "tensor 'a' of files[0] must begin at byte 0 of the data, where the one before it ends, but its data_offsets are [4,12]."],
    ['half the data', fileOf(headerOf({a: one}), new Uint8Array(7)), 'files[0] must have 8 bytes of data, where its last tensor ends, but has 7.'],
    ['a tensor twice', [good, good], "tensor 'x' must be in one file, but is in files[0] and in files[1]."],
  ];
  errors.forEach(([name, files, message]) => {
    it(`says what is wrong with ${name}`, () => {
      expect(() => readSafetensors(files as Uint8Array)).toThrowError(`Error in readSafetensors: ${message}`);
    });
  });
});

describe('safetensorsValues', () => {
  const read = (dtype: string, values: Uint8Array, size: number): Float32Array =>
    safetensorsValues({dtype, shape: [size], bytes: values} satisfies SafetensorsTensor);

  it('gives every BF16 exactly', () => {
    expectSame(read('BF16', allHalves, 2 ** 16), floatsOf((half) => half << 16));
  });

  it('gives every F16 exactly', () => {
    // By bits, but for subnormals, which are multiples of 2^-24.
    const normals = floatsOf((half) => {
      const exponent = (half >> 10) & 31;
      return ((half & 0x8000) << 16) | ((exponent === 31 ? 255 : exponent + 112) << 23) | ((half & 1023) << 13);
    });
    const expected = normals.map((value, half) =>
      ((half >> 10) & 31) === 0 ? ((half & 0x8000 ? -1 : 1) * (half & 1023)) / 16777216 : value);
    expectSame(read('F16', allHalves, 2 ** 16), expected);
    expect(expected[0x3c00]).toBe(1);
    expect(expected[0x7bff]).toBe(65504);
    expect(expected[0x8001]).toBe(-5.960464477539063e-8);
  });

  it('gives F32 as it is, wherever it lies', () => {
    const values = Float32Array.of(1.1, -0, NaN, Infinity, 1e-45);
    const file = new Uint8Array(21);
    file.set(new Uint8Array(values.buffer), 1);
    expectSame(read('F32', file.subarray(1), 5), values);
  });

  it('says what it cannot read', () => {
    expect(() => read('F8_E4M3', bytes(1), 1)).toThrowError(
      "Error in safetensorsValues: the tensor's dtype must be F32 or F16 or BF16, but is F8_E4M3.");
    expect(() => read('F16', bytes(1, 2, 3), 1)).toThrowError(
      'Error in safetensorsValues: the tensor must have 2 bytes as F16 [1], but has 3.');
  });
});
