import {op, Tensor, type Tensor1D, type Tensor2D, type Tensor3D, type TensorLike} from '@tensorflow/tfjs-core';
import {
  type MoeActivation,
  type MoeActivationAttrs,
  type MoeGateUp,
  MoeGroupedMatMul,
  type MoeKernelActivation,
  type MoeWeightFormat,
  type MoeWeightParts,
  runMoeKernel,
} from '../kernel_names';
import {assert, assertRank, checkBoolean, checkOptions, convertToOptionalTensor, convertToTensor} from './checks';

/** Weights of experts: one tensor, or several that are read as their concatenation along axis 0. */
export type MoeWeights = Tensor | TensorLike | Tensor[];

export type MoeGroupedMatMulOptions = {
  weightFormat?: MoeWeightFormat | null;
  bias?: Tensor | TensorLike | null;
  activation?: MoeActivation | null;
  gated?: boolean | null;
  gateUp?: MoeGateUp | null;
  swigluAlpha?: number | null;
  swigluLimit?: number | null;
};

const kernelActivations: Record<MoeActivation, MoeKernelActivation> = {
  linear: 'linear',
  relu: 'relu',
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  geluTanh: 'geluTanh',
  geluNew: 'geluTanh',
  swigluOai: 'swigluOai',
};

function moeGroupedMatMul_(
  x: Tensor | TensorLike,
  weights: MoeWeights,
  expertFirstTokenOffset: Tensor | TensorLike,
  options?: MoeGroupedMatMulOptions | null,
): Tensor2D {
  const opName = 'moeGroupedMatMul';
  const given = checkOptions(
    options,
    ['weightFormat', 'bias', 'activation', 'gated', 'gateUp', 'swigluAlpha', 'swigluLimit'],
    opName,
  );
  const weightFormat = oneOf(given.weightFormat ?? 'outIn', ['outIn', 'inOut'], 'weightFormat', opName);
  const activation = checkActivation(given, opName);
  const $x = convertToTensor(x, 'x', opName, ['float32']) as Tensor2D;
  assertRank($x, 'x', opName, '[R, C]', 'Reshape it to [-1, C] first.');
  const parts = convertWeights(weights, $x, weightFormat, opName);
  const numExperts = parts.reduce((count, {shape}) => count + shape[0], 0);
  const numColumns = weightFormat === 'outIn' ? parts[0].shape[1] : parts[0].shape[2];
  assert(
    !activation.gated || numColumns % 2 === 0,
    opName,
    () => `weights must have an even D when gated, a gate and an up for each output, but D = ${numColumns}.`,
  );
  const $offset = convertToTensor(expertFirstTokenOffset, 'expertFirstTokenOffset', opName, ['int32']) as Tensor1D;
  assertRank($offset, 'expertFirstTokenOffset', opName, '[L+1]');
  assert(
    $offset.size === numExperts + 1,
    opName,
    () =>
      `expertFirstTokenOffset must have L + 1 = ${numExperts + 1} values for weights of L = ${numExperts} experts, ` +
      `but has ${$offset.size}.`,
  );
  const $bias = convertToOptionalTensor(given.bias, 'bias', opName, ['float32']);
  assert(
    $bias == null || ($bias.rank === 2 && $bias.shape[0] === numExperts && $bias.shape[1] === numColumns),
    opName,
    () => `bias must be [L, D] = [${numExperts},${numColumns}] for these weights, but is [${$bias!.shape}].`,
  );

  const named: MoeWeightParts = {};
  parts.forEach((part, p) => {
    named[`weights${p}`] = part;
  });
  const [out] = runMoeKernel(
    MoeGroupedMatMul,
    {x: $x, expertFirstTokenOffset: $offset, ...named, bias: $bias},
    {weightFormat, numParts: parts.length, ...activation},
  );
  return out as Tensor2D;
}

function oneOf<Value extends string>(value: Value, allowed: Value[], argName: string, opName: string): Value {
  const quoted = allowed.map((name) => `'${name}'`).join(' or ');
  assert(allowed.includes(value), opName, () => `${argName} must be ${quoted}, but is '${String(value)}'.`);
  return value;
}

function checkActivation(given: Partial<MoeGroupedMatMulOptions>, opName: string): MoeActivationAttrs {
  const activation = given.activation ?? 'linear';
  assert(
    Object.prototype.hasOwnProperty.call(kernelActivations, activation),
    opName,
    () => `activation must be one of ${Object.keys(kernelActivations).join(', ')}, but is '${String(activation)}'.`,
  );
  const gated = checkBoolean(given.gated, 'gated', opName);
  assert(
    gated || activation !== 'swigluOai',
    opName,
    () => "activation 'swigluOai' is for gated experts: it takes gated: true.",
  );
  const swigluAlpha = given.swigluAlpha ?? 1.702;
  assert(
    Number.isFinite(swigluAlpha),
    opName,
    () => `swigluAlpha must be a finite number, but is ${String(swigluAlpha)}.`,
  );
  const swigluLimit = given.swigluLimit ?? 7;
  assert(
    Number.isFinite(swigluLimit) && swigluLimit > 0,
    opName,
    () => `swigluLimit must be a positive number, but is ${String(swigluLimit)}.`,
  );
  return {
    activation: kernelActivations[activation],
    gated,
    gateUp: oneOf(given.gateUp ?? 'concatenated', ['concatenated', 'interleaved'], 'gateUp', opName),
    swigluAlpha,
    swigluLimit,
  };
}

function convertWeights(weights: MoeWeights, x: Tensor2D, weightFormat: MoeWeightFormat, opName: string): Tensor3D[] {
  const isList = Array.isArray(weights) && (weights as unknown[]).some((part) => part instanceof Tensor);
  const given = isList ? (weights as Tensor[]) : [weights as Tensor | TensorLike];
  const axes = weightFormat === 'outIn' ? '[L, D, C]' : '[L, C, D]';
  const inAxis = weightFormat === 'outIn' ? 2 : 1;
  const numIn = x.shape[1];
  const parts = given.map((part, p) => {
    const argName = isList ? `weights[${p}]` : 'weights';
    const $part = convertToTensor(part, argName, opName, ['float32']) as Tensor3D;
    assertRank($part, argName, opName, axes);
    assert(
      $part.size > 0,
      opName,
      () => `${argName} must have at least 1 expert, row and column, but is [${$part.shape}].`,
    );
    const fitsOther = $part.shape[3 - inAxis] === numIn;
    assert(
      $part.shape[inAxis] === numIn,
      opName,
      () =>
        `${argName} must be ${axes} with C = ${numIn} for x [${x.shape}] and weightFormat '${weightFormat}', but is ` +
        `[${$part.shape}].${fitsOther ? ` It fits weightFormat '${weightFormat === 'outIn' ? 'inOut' : 'outIn'}'.` : ''}`,
    );
    return $part;
  });
  const [first] = parts;
  parts.forEach((part, p) => {
    assert(
      part.shape[1] === first.shape[1] && part.shape[2] === first.shape[2],
      opName,
      () => `weights[${p}] must be like weights[0] [${first.shape}] but for axis 0, but is [${part.shape}].`,
    );
  });
  return parts;
}

/**
 * The matmul of a mixture of experts: the rows of each expert times its own weights, all experts in one launch, with
 * bias, activation and gating in the same pass.
 *
 * ```js
 * // R = 3 rows of C = 2 columns: row 0 is expert 0's, rows 1 and 2 are expert 1's; D = 2
 * const x = tf.tensor2d([[1, 2], [3, 4], [5, 6]]);
 * const weights = tf.tensor3d([[[1, 0], [0, 1]], [[1, 1], [1, -1]]]); // [L, D, C]
 * await tf.moeGroupedMatMul(x, weights, [0, 1, 3]).array(); // => [[1, 2], [7, -1], [11, -1]]
 * await tf.moeGroupedMatMul(x, weights, [0, 1, 3], {activation: 'relu', gated: true}).array(); // => [[2], [-7], [-11]]
 * ```
 *
 * @param x  float32 [R, C]: the rows of moePermute.
 * @param weights  float32 [L, D, C], an output a row, as checkpoints of vLLM, PyTorch and Hugging Face have them. An
 *     array of tensors is read as their concatenation along axis 0, the way past the size that a device binds.
 * @param expertFirstTokenOffset  int32 [L+1], of the same moePermute: rows offset[e] to offset[e+1] - 1 are of expert
 *     e. Rows of no expert are 0 in the result and are not read. Offsets must ascend in 0..R; the values of others are
 *     unspecified.
 * @param options.weightFormat  `'outIn'`, or `'inOut'` for weights [L, C, D]. Neither is copied.
 * @param options.bias  float32 [L, D], added before the activation.
 * @param options.activation  `'linear'`, `'relu'`, `'silu'` (`'swish'`), `'gelu'` (by erf), `'geluTanh'` (`'geluNew'`),
 *     or `'swigluOai'`, which is gated: min(g, limit) * sigmoid(alpha * min(g, limit)) * (clamp(u, -limit, limit) + 1).
 * @param options.gated  Whether the D columns are gates g and ups u; the result is activation(g) * u.
 * @param options.gateUp  `'concatenated'`: D/2 gates, then D/2 ups. `'interleaved'`: gate 2i, up 2i+1.
 * @param options.swigluAlpha  Default 1.702.
 * @param options.swigluLimit  Default 7.
 * @returns float32 [R, D], or [R, D/2] if gated.
 *
 * Gradient: to x, weights and bias; the product before the activation is computed again rather than kept. Of any order
 * without activation and gating, else of the first. dy of rows of no expert is ignored.
 *
 * @throws if a rank, dtype, shape or option does not fit, or on a GPU a tensor is past what the device binds, before
 *     any work.
 *
 * Source: DeepGEMM's and vLLM's grouped GEMM; jax.lax.ragged_dot.
 */
export const moeGroupedMatMul = /* @__PURE__ */ op({moeGroupedMatMul_});
