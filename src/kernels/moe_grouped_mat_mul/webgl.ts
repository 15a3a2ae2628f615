/**
 * MoeGroupedMatMul and its gradients on WebGL, all gathers: a fragment finds the expert of its row by a binary search
 * over the offsets, and sums over C.
 *
 *   MoeGroupedMatMul                    1 draw for each part of the weights, each taking over the rows of the parts
 *                                       before. Where C, D and the columns of the result are even, a texel has 2 x 2 of
 *                                       them, and a draw before finds the experts of pairs of rows.
 *   MoeActivate                         1 draw
 *   MoeGroupedMatMulBackpropActivation  1 draw
 *   MoeGroupedMatMulBackpropWeights     1 draw: a fragment sums over the rows of an expert
 */
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {
  MoeActivate,
  MoeGroupedMatMul,
  type MoeGroupedMatMulAttrs,
  MoeGroupedMatMulBackpropActivation,
  MoeGroupedMatMulBackpropWeights,
} from '../../contract/kernel_names';
import {ACTIVATION_DERIVATIVES_GLSL, ACTIVATIONS_GLSL, activationUniforms, gateColumns} from './activations';
import {CHAIN_TERMS, LONG_SUM_GLSL, LONG_SUM_UNIFORMS} from '../shared/long_sums';
import {assertExact, assertFits, disposeAll, EXPERT_OF_ROW, fillTensor, runGlsl, webglKernel} from '../shared/webgl';
import {columnsOf, partsOf} from '../../contract/expert_weights';
import {isQuantizedEncoding} from '../../contract/quantized_weights';
import {weightTerms, type WeightTerms} from './webgl_weights';

export const moeGroupedMatMulWebGL = webglKernel(MoeGroupedMatMul, (backend, inputs, attrs) => {
  const {x, expertFirstTokenOffset: offset, bias} = inputs;
  const [numRows, numIn] = x.shape;
  const parts = partsOf(inputs, attrs);
  const {numColumns, numOutputs} = columnsOf(parts[0].weights, attrs);
  const shape = [numRows, numOutputs];
  const packed = [numIn, numColumns, numOutputs].every((size) => size % 2 === 0);
  assertExact(MoeGroupedMatMul, {'the number of rows': numRows});
  const names = parts.map((_, p) => (parts.length === 1 ? 'weights' : `weights[${p}]`));
  // Codes have textures of their own.
  const floats = isQuantizedEncoding(attrs.encoding)
    ? []
    : parts.map(({weights}, p): [string, number[]] => [names[p], weights.shape]);
  assertFits(MoeGroupedMatMul, {x: x.shape, ...Object.fromEntries(floats), 'the result': shape}, packed);
  if (numRows === 0) {
    return {out: fillTensor(backend, shape, 'float32', 0)};
  }
  let out: TensorInfo | undefined;
  for (const [p, part] of parts.entries()) {
    const {firstExpert, numExperts} = part;
    const weights = weightTerms(backend, MoeGroupedMatMul, names[p], part, attrs, packed);
    const experts = {inputs: {offset}, uniforms: {firstExpert, numExperts}, glsl: EXPERT_OF_ROW};
    const factors = {x, bias, previous: out};
    let next: TensorInfo;
    if (packed) {
      const ofPairs = expertsOfPairs(backend, experts, numRows);
      next = multiplyPacked(backend, factors, ofPairs, weights, firstExpert, attrs, shape);
      disposeAll(backend, [ofPairs]);
    } else {
      next = multiply(backend, factors, experts, weights, firstExpert, attrs, shape);
    }
    disposeAll(backend, out == null ? [] : [out]);
    out = next;
  }
  return {out: out!};
});

/**
 * How a program finds the expert of a row: GLSL of expertOfRow(row), counted from the part's first, -1 for none, and
 * what it reads.
 */
export type ExpertsOfRows = {inputs: Record<string, TensorInfo>; uniforms: Record<string, number>; glsl: string};

type Factors = {
  x: TensorInfo;
  bias?: TensorInfo;
  /** What the parts before have written. */
  previous?: TensorInfo;
};

/** What a program reads besides x and the weights. */
function given({bias, previous}: Factors): Record<string, TensorInfo> {
  return {...(bias == null ? {} : {bias}), ...(previous == null ? {} : {previous})};
}

function uniformsOf(
  {x}: Factors,
  firstExpert: number,
  attrs: MoeGroupedMatMulAttrs,
  numOutputs: number,
): Record<string, number> {
  return {
    firstExpert,
    numIn: x.shape[1],
    numColumns: attrs.gated ? 2 * numOutputs : numOutputs,
    isGated: attrs.gated ? 1 : 0,
    ...gateColumns(attrs, numOutputs),
    ...activationUniforms(attrs),
  };
}

export function multiply(
  backend: MathBackendWebGL,
  factors: Factors,
  experts: ExpertsOfRows,
  weights: WeightTerms,
  firstExpert: number,
  attrs: MoeGroupedMatMulAttrs,
  shape: number[],
): TensorInfo {
  return runGlsl(backend, {
    name: `MoeGroupedMatMul${weights.key}`,
    inputs: {x: factors.x, ...weights.inputs, ...experts.inputs, ...given(factors)},
    raw: weights.raw,
    uniforms: {...experts.uniforms, ...weights.uniforms, ...uniformsOf(factors, firstExpert, attrs, shape[1])},
    output: {shape, dtype: 'float32'},
    code: `
      ${ACTIVATIONS_GLSL}
      ${experts.glsl}
      ${weights.glsl}
      float product(int row, int expert, int d) {
        return sumOfTerms(row, expert, d)${factors.bias == null ? '' : ' + getBias(firstExpert + expert, d)'};
      }
      void main() {
        ivec2 coords = getOutputCoords();
        int expert = expertOfRow(coords.x);
        float value = ${factors.previous == null ? '0.0' : 'getPrevious(coords.x, coords.y)'};
        if (expert >= 0 && isGated == 1) {
          int gate = coords.y * gateStep;
          float up = clampedUp(product(coords.x, expert, gate + upStep));
          value = activate(clampedGate(product(coords.x, expert, gate))) * up;
        } else if (expert >= 0) {
          value = activate(product(coords.x, expert, coords.y));
        }
        setOutput(value);
      }`,
  });
}

/** float32, packed: a texel has the experts of two consecutive rows, -1 for none. */
export function expertsOfPairs(backend: MathBackendWebGL, experts: ExpertsOfRows, numRows: number): TensorInfo {
  return runGlsl(backend, {
    name: 'MoeGroupedMatMulExperts',
    inputs: experts.inputs,
    uniforms: {...experts.uniforms, numRows},
    output: {shape: [2 * Math.ceil(numRows / 2), 2], dtype: 'float32'},
    packed: 'output',
    code: `
      ${experts.glsl}
      void main() {
        int row = getOutputCoords().x;
        int next = row + 1 < numRows ? expertOfRow(row + 1) : -1;
        setOutput(vec4(expertOfRow(row), 0.0, next, 0.0));
      }`,
  });
}

/** A texel of the result has two columns of two rows, which may be of two experts. */
export function multiplyPacked(
  backend: MathBackendWebGL,
  factors: Factors,
  experts: TensorInfo,
  weights: WeightTerms,
  firstExpert: number,
  attrs: MoeGroupedMatMulAttrs,
  shape: number[],
): TensorInfo {
  const bias = `
    vec4 texel = getBias(firstExpert + expert, d);
    sum += imod(firstExpert + expert, 2) == 0 ? texel.xyxy : texel.zwzw;`;
  return runGlsl(backend, {
    name: `MoeGroupedMatMul_packed${weights.key}`,
    inputs: {x: factors.x, ...weights.inputs, experts, ...given(factors)},
    raw: weights.raw,
    uniforms: {...weights.uniforms, ...uniformsOf(factors, firstExpert, attrs, shape[1])},
    output: {shape, dtype: 'float32'},
    packed: 'inputs and output',
    code: `
      ${ACTIVATIONS_GLSL}
      ${weights.glsl}
      vec4 product(int row, int expert, int d) {
        vec4 sum = sumOfTerms(row, expert, d);
        ${factors.bias == null ? '' : bias}
        return sum;
      }
      // Two columns of z, or two gates and their ups: of two texels, or in turn in both.
      void columnsOf(int row, int expert, int column, out vec4 gate, out vec4 up) {
        gate = product(row, expert, isGated == 1 ? column * gateStep : column);
        up = vec4(1.0);
        if (isGated == 1) {
          vec4 next = product(row, expert, gateStep == 1 ? column + upStep : column * gateStep + 2);
          up = gateStep == 1 ? next : vec4(gate.y, next.y, gate.w, next.w);
          gate = gateStep == 1 ? gate : vec4(gate.x, next.x, gate.z, next.z);
        }
      }
      float valueOf(float gate, float up) {
        float value = activate(clampedGate(gate));
        return isGated == 1 ? value * clampedUp(up) : value;
      }
      void main() {
        ivec2 coords = getOutputCoords();
        vec4 experts = getExperts(coords.x, 0);
        vec4 gate = vec4(0.0);
        vec4 up = vec4(0.0);
        if (experts.x >= 0.0) { columnsOf(coords.x, indexOf(experts.x), coords.y, gate, up); }
        if (experts.z >= 0.0 && experts.z != experts.x) {
          vec4 gateOfSecond;
          vec4 upOfSecond;
          columnsOf(coords.x, indexOf(experts.z), coords.y, gateOfSecond, upOfSecond);
          gate.zw = gateOfSecond.zw;
          up.zw = upOfSecond.zw;
        }
        vec4 values = ${factors.previous == null ? 'vec4(0.0)' : 'getPrevious(coords.x, coords.y)'};
        for (int i = 0; i < 4; i++) {
          if ((i < 2 ? experts.x : experts.z) >= 0.0) { values[i] = valueOf(gate[i], up[i]); }
        }
        setOutput(values);
      }`,
  });
}

export const moeActivateWebGL = webglKernel(MoeActivate, (backend, {z}, attrs) => {
  const [numRows, numColumns] = z.shape;
  const numOutputs = attrs.gated ? numColumns / 2 : numColumns;
  assertFits(MoeActivate, {z: z.shape});
  if (numRows === 0) {
    return {out: fillTensor(backend, [numRows, numOutputs], 'float32', 0)};
  }
  const out = runGlsl(backend, {
    name: 'MoeActivate',
    inputs: {z},
    uniforms: {isGated: attrs.gated ? 1 : 0, ...gateColumns(attrs, numOutputs), ...activationUniforms(attrs)},
    output: {shape: [numRows, numOutputs], dtype: 'float32'},
    code: `
      ${ACTIVATIONS_GLSL}
      void main() {
        ivec2 coords = getOutputCoords();
        int gate = coords.y * (isGated == 1 ? gateStep : 1);
        float value = 0.0;
        if (isGated == 1) {
          value = activate(clampedGate(getZ(coords.x, gate))) * clampedUp(getZ(coords.x, gate + upStep));
        } else {
          value = activate(getZ(coords.x, gate));
        }
        setOutput(value);
      }`,
  });
  return {out};
});

export const moeGroupedMatMulBackpropActivationWebGL = webglKernel(
  MoeGroupedMatMulBackpropActivation,
  (backend, {dy, z}, attrs) => {
    const numOutputs = dy.shape[1];
    assertFits(MoeGroupedMatMulBackpropActivation, {z: z.shape});
    if (z.shape[0] === 0) {
      return {dz: fillTensor(backend, z.shape, 'float32', 0)};
    }
    const dz = runGlsl(backend, {
      name: 'MoeGroupedMatMulBackpropActivation',
      inputs: {dy, z},
      uniforms: {
        numOutputs,
        isGated: attrs.gated ? 1 : 0,
        ...gateColumns(attrs, numOutputs),
        ...activationUniforms(attrs),
      },
      output: {shape: z.shape, dtype: 'float32'},
      code: `
        ${ACTIVATIONS_GLSL}
        ${ACTIVATION_DERIVATIVES_GLSL}
        void main() {
          ivec2 coords = getOutputCoords();
          float value = 0.0;
          if (isGated == 0) {
            value = getDy(coords.x, coords.y) * activateDerivative(getZ(coords.x, coords.y));
          } else {
            int o = gateStep == 1 ? imod(coords.y, numOutputs) : coords.y / 2;
            float gate = getZ(coords.x, o * gateStep);
            float up = getZ(coords.x, o * gateStep + upStep);
            bool isGate = coords.y == o * gateStep;
            value = getDy(coords.x, o) * (isGate ? gatedDerivativeByGate(gate, up) : gatedDerivativeByUp(gate, up));
          }
          setOutput(value);
        }`,
    });
    return {dz};
  },
);

export const moeGroupedMatMulBackpropWeightsWebGL = webglKernel(
  MoeGroupedMatMulBackpropWeights,
  (backend, {a, b, expertFirstTokenOffset}, {firstExpert, numExperts}) => {
    const [numRows, numA] = a.shape;
    const numB = b.shape[1];
    const shape = [numExperts, numA, numB];
    assertExact(MoeGroupedMatMulBackpropWeights, {'the number of rows': numRows});
    assertFits(MoeGroupedMatMulBackpropWeights, {'the rows': a.shape, 'the other rows': b.shape, 'the result': shape});
    if (numRows === 0) {
      return {dWeights: fillTensor(backend, shape, 'float32', 0)};
    }
    const out = runGlsl(backend, {
      name: 'MoeGroupedMatMulBackpropWeights',
      inputs: {a, b, offset: expertFirstTokenOffset},
      uniforms: {numRows, numA, firstExpert, ...LONG_SUM_UNIFORMS},
      output: {shape: [numExperts * numA, numB], dtype: 'float32'},
      code: `
        ${LONG_SUM_GLSL}
        void main() {
          ivec2 coords = getOutputCoords();
          int expert = coords.x / numA;
          int column = coords.x - expert * numA;
          int end = min(numRows, indexOf(getOffset(firstExpert + expert + 1)));
          float sum = 0.0;
          float rest = 0.0;
          for (int first = max(0, indexOf(getOffset(firstExpert + expert))); first < end; first += ${CHAIN_TERMS}) {
            float chain = 0.0;
            for (int row = first; row < min(first + ${CHAIN_TERMS}, end); row++) {
              chain += getA(row, column) * getB(row, coords.y);
            }
            addChain(sum, rest, chain);
          }
          setOutput(sum);
        }`,
    });
    return {dWeights: {...out, shape}};
  },
);
