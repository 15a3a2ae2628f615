/** How programs of the grouped matmul read weights on WebGL, and sum over the terms of a product. */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {Part, WeightLayout} from '../../contract/expert_weights';
import type {MoeWeightFormat} from '../../contract/kernel_names';
import {
  codesPerWord,
  encodingKey,
  isQuantizedEncoding,
  type QuantizedEncoding,
  quantizedFormats,
} from '../../contract/quantized_weights';
import {weightReaderGlsl, weightTextures} from '../weight_formats/webgl';

/** The weights of a part, for a program that has `numIn`, `numColumns` and getX. */
export type WeightTerms = {
  /** Of programs that differ in nothing else. */
  key: string;
  inputs: Record<string, TensorInfo>;
  raw: Record<string, TensorInfo>;
  uniforms: Record<string, number>;
  /**
   * GLSL: sumOfTerms(row, expert, d), column d of a product before its bias. In a packed program it is a vec4: columns
   * d and d + 1 of a row, then of the next row.
   */
  glsl: string;
};

/** `name` is what errors call the weights. */
export function weightTerms(
  backend: MathBackendWebGL,
  kernelName: string,
  name: string,
  part: Part<TensorInfo>,
  {weightFormat, encoding}: WeightLayout,
  packed: boolean,
): WeightTerms {
  if (!isQuantizedEncoding(encoding)) {
    const glsl = packed ? packedFloats : floats;
    return {key: '', inputs: {weights: stacked(part)}, raw: {}, uniforms: {}, glsl: glsl[weightFormat]};
  }
  const {weights: codes, scales, offsets} = part;
  const numCodes = codes.shape[2] * codesPerWord(encoding);
  const numGroups = encoding.groupSize === 0 ? 0 : Math.ceil(numCodes / encoding.groupSize);
  return {
    key: `_${encodingKey(encoding)}`,
    inputs: {},
    ...weightTextures(backend, kernelName, name, {codes, scales, offsets}, encoding, numGroups),
    glsl: weightReaderGlsl(encoding) + (packed ? packedCodes(encoding) : codesOneByOne)[weightFormat],
  };
}

/** A matrix for each expert, one below the other. */
function stacked({weights}: Part<TensorInfo>): TensorInfo {
  const [numExperts, numRows, numColumns] = weights.shape;
  return {...weights, shape: [numExperts * numRows, numColumns]};
}

type ByFormat = Readonly<Record<MoeWeightFormat, string>>;

const sumOfFloats = (weight: string) => `
  float sumOfTerms(int row, int expert, int d) {
    float sum = 0.0;
    for (int c = 0; c < numIn; c++) { sum += getX(row, c) * ${weight}; }
    return sum;
  }`;

const floats: ByFormat = {
  outIn: sumOfFloats('getWeights(expert * numColumns + d, c)'),
  inOut: sumOfFloats('getWeights(expert * numIn + c, d)'),
};

/** Texels of x: columns c and c + 1 of two rows. Of the weights: two outputs of two terms, one way or the other. */
const sumOfTexels = (weights: string, products: string) => `
  vec4 sumOfTerms(int row, int expert, int d) {
    vec4 sum = vec4(0.0);
    for (int c = 0; c < numIn; c += 2) {
      vec4 x = getX(row, c);
      vec4 w = ${weights};
      sum += ${products};
    }
    return sum;
  }`;

const OUT_IN_PRODUCTS = 'x.xxzz * w.xzxz + x.yyww * w.ywyw';
const IN_OUT_PRODUCTS = 'x.xxzz * w.xyxy + x.yyww * w.zwzw';

const packedFloats: ByFormat = {
  outIn: sumOfTexels('getWeights(expert * numColumns + d, c)', OUT_IN_PRODUCTS),
  inOut: sumOfTexels('getWeights(expert * numIn + c, d)', IN_OUT_PRODUCTS),
};

const codesOneByOne: ByFormat = {
  // Where a row of weights ends within a quad, the rest of the quad is another row's.
  outIn: `
  float sumOfTerms(int row, int expert, int d) {
    float sum = 0.0;
    for (int c = 0; c < numIn; c += 4) {
      vec4 w = weightsAt(expert * numColumns + d, c);
      sum += getX(row, c) * w.x + getX(row, c + 1) * w.y;
      if (c + 2 < numIn) { sum += getX(row, c + 2) * w.z + getX(row, c + 3) * w.w; }
    }
    return sum;
  }`,
  inOut: `
  float sumOfTerms(int row, int expert, int d) {
    float sum = 0.0;
    int quad = d / 4 * 4;
    for (int c = 0; c < numIn; c++) { sum += getX(row, c) * weightsAt(expert * numIn + c, quad)[d - quad]; }
    return sum;
  }`,
};

/**
 * GLSL by bits of a code: productsAt(row, weightRow, c), the products of two columns with the terms of a word from c
 * on, without scales.
 */
const productsAt: Readonly<Record<number, string>> = {
  4: `
  vec4 productsAt(int row, int weightRow, int c) {
    int word = weightRow * wordsPerRow + c / 8;
    uint codes0 = codesWord(word);
    uint codes1 = codesWord(word + wordsPerRow);
    return productsOfQuads(row, c, decodeQuad(codes0), decodeQuad(codes1)) +
      productsOfQuads(row, c + 4, decodeQuad(codes0 >> 16), decodeQuad(codes1 >> 16));
  }`,
  8: `
  vec4 productsAt(int row, int weightRow, int c) {
    int word = weightRow * wordsPerRow + c / 4;
    return productsOfQuads(row, c, decodeQuad(codesWord(word)), decodeQuad(codesWord(word + wordsPerRow)));
  }`,
  16: `
  vec4 productsAt(int row, int weightRow, int c) {
    int word = weightRow * wordsPerRow + c / 2;
    vec4 x = getX(row, c);
    vec4 w = decodeQuad(uvec2(codesWord(word), codesWord(word + wordsPerRow)));
    return ${OUT_IN_PRODUCTS};
  }`,
};

/** GLSL: the products of two columns' weights of four terms with two rows. */
const PRODUCTS_OF_QUADS = `
  vec4 productsOfQuads(int row, int c, vec4 w0, vec4 w1) {
    vec4 x01 = getX(row, c);
    vec4 x23 = getX(row, c + 2);
    vec4 x = vec4(x01.xy, x23.xy);
    vec4 next = vec4(x01.zw, x23.zw);
    return vec4(dot(x, w0), dot(x, w1), dot(next, w0), dot(next, w1));
  }`;

/** Sums of each group of terms are multiplied by the scale: one multiplication in place of one a weight. */
const sumOfGroups = (numTerms: number) => `
  vec4 sumOfTerms(int row, int expert, int d) {
    int weightRow = expert * numColumns + d;
    vec4 sum = vec4(0.0);
    for (int first = 0; first < numIn; first += groupSize) {
      int end = min(first + groupSize, numIn);
      vec4 ofGroup = vec4(0.0);
      for (int c = first; c < end; c += ${numTerms}) { ofGroup += productsAt(row, weightRow, c); }
      sum += vec2(scaleOf(weightRow, first), scaleOf(weightRow + 1, first)).xyxy * ofGroup;
    }
    return sum;
  }`;

const sumOfUnscaled = (numTerms: number) => `
  vec4 sumOfTerms(int row, int expert, int d) {
    int weightRow = expert * numColumns + d;
    vec4 sum = vec4(0.0);
    for (int c = 0; c < numIn; c += ${numTerms}) { sum += productsAt(row, weightRow, c); }
    return sum;
  }`;

/** With offsets, weights are made before they are multiplied: a sum of codes could be large where weights are small. */
const SUM_OF_WEIGHTS = `
  vec4 sumOfTerms(int row, int expert, int d) {
    int weightRow = expert * numColumns + d;
    vec4 sum = vec4(0.0);
    for (int c = 0; c < numIn; c += 4) {
      sum += productsOfQuads(row, c, weightsAt(weightRow, c), weightsAt(weightRow + 1, c));
    }
    return sum;
  }`;

function packedCodes(encoding: QuantizedEncoding): ByFormat {
  const {bits, hasScales} = quantizedFormats[encoding.format];
  const sum = encoding.hasOffsets
    ? SUM_OF_WEIGHTS
    : productsAt[bits] + (hasScales ? sumOfGroups : sumOfUnscaled)(codesPerWord(encoding));
  return {
    outIn: PRODUCTS_OF_QUADS + sum,
    inOut: `
  vec2 pairAt(int row, int column) {
    vec4 quad = weightsAt(row, column / 4 * 4);
    return column % 4 == 0 ? quad.xy : quad.zw;
  }
  ${sumOfTexels('vec4(pairAt(expert * numIn + c, d), pairAt(expert * numIn + c + 1, d))', IN_OUT_PRODUCTS)}`,
  };
}
