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
 * GLSL by bits of a code: the terms of a product that a word has. readRows(row, c, x, next) reads those of two rows,
 * weightsOf(word, scale, offset) decodes a word of codes.
 */
const termsOfWord = (weight: (codes: string) => string): Readonly<Record<number, string>> => ({
  // A byte has an even and an odd term.
  4: `
  struct Terms { vec4 even; vec4 odd; };
  void readRows(int row, int c, out Terms x, out Terms next) {
    vec4 x01 = getX(row, c);
    vec4 x23 = getX(row, c + 2);
    vec4 x45 = getX(row, c + 4);
    vec4 x67 = getX(row, c + 6);
    x = Terms(vec4(x01.x, x23.x, x45.x, x67.x), vec4(x01.y, x23.y, x45.y, x67.y));
    next = Terms(vec4(x01.z, x23.z, x45.z, x67.z), vec4(x01.w, x23.w, x45.w, x67.w));
  }
  Terms weightsOf(int word, float scale, float offset) {
    uvec4 bytes = codesBytes(word);
    return Terms(${weight('bytes')}, ${weight('bytes >> 4')});
  }
  float productOf(Terms x, Terms w) { return dot(x.even, w.even) + dot(x.odd, w.odd); }`,
  8: `
  struct Terms { vec4 all; };
  void readRows(int row, int c, out Terms x, out Terms next) {
    vec4 x01 = getX(row, c);
    vec4 x23 = getX(row, c + 2);
    x = Terms(vec4(x01.xy, x23.xy));
    next = Terms(vec4(x01.zw, x23.zw));
  }
  Terms weightsOf(int word, float scale, float offset) { return Terms(${weight('codesBytes(word)')}); }
  float productOf(Terms x, Terms w) { return dot(x.all, w.all); }`,
});

/** Without offsets the sum of a group is multiplied by its scale: one multiplication in place of one a weight. */
const scaledLater = (codes: string) => `decodeCodes(${codes})`;

/** With offsets this would not do: a sum of codes can be large where weights are small. */
const scaledAtOnce = (codes: string) => `scale * decodeCodes(${codes}) + offset`;

const sumOfGroups = ({format, hasOffsets}: QuantizedEncoding, perWord: number) => `
  ${termsOfWord(hasOffsets ? scaledAtOnce : scaledLater)[quantizedFormats[format].bits]}
  vec2 offsetsOf(int weightRow, int c) {
    return ${hasOffsets ? 'vec2(offsetOf(weightRow, c), offsetOf(weightRow + 1, c))' : 'vec2(0.0)'};
  }
  vec4 sumOfTerms(int row, int expert, int d) {
    int weightRow = expert * numColumns + d;
    int word = weightRow * wordsPerRow;
    vec4 sum = vec4(0.0);
    for (int first = 0; first < numIn; first += groupSize) {
      vec2 scales = vec2(scaleOf(weightRow, first), scaleOf(weightRow + 1, first));
      vec2 offsets = offsetsOf(weightRow, first);
      int end = min(first + groupSize, numIn);
      vec4 ofGroup = vec4(0.0);
      for (int c = first; c < end; c += ${perWord}) {
        Terms x;
        Terms next;
        readRows(row, c, x, next);
        Terms w0 = weightsOf(word, scales.x, offsets.x);
        Terms w1 = weightsOf(word + wordsPerRow, scales.y, offsets.y);
        ofGroup += vec4(productOf(x, w0), productOf(x, w1), productOf(next, w0), productOf(next, w1));
        word++;
      }
      sum += ${hasOffsets ? 'ofGroup' : 'scales.xyxy * ofGroup'};
    }
    return sum;
  }`;

/** A word has two terms of a column, so that the words of two columns are a texel. */
const TEXEL_OF_HALVES = `
  vec4 halvesAt(int weightRow, int c) {
    int word = weightRow * wordsPerRow + c / 2;
    return decodeQuad(uvec2(codesWord(word), codesWord(word + wordsPerRow)));
  }`;

const PAIR_AT = `
  vec2 pairAt(int row, int column) {
    vec4 quad = weightsAt(row, column / 4 * 4);
    return column % 4 == 0 ? quad.xy : quad.zw;
  }`;

const packedCodes = (encoding: QuantizedEncoding): ByFormat => ({
  outIn: quantizedFormats[encoding.format].hasScales
    ? sumOfGroups(encoding, codesPerWord(encoding))
    : TEXEL_OF_HALVES + sumOfTexels('halvesAt(expert * numColumns + d, c)', OUT_IN_PRODUCTS),
  inOut:
    PAIR_AT + sumOfTexels('vec4(pairAt(expert * numIn + c, d), pairAt(expert * numIn + c + 1, d))', IN_OUT_PRODUCTS),
});
