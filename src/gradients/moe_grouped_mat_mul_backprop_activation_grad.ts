/**
 * MoeGroupedMatMulBackpropActivation is linear in dy. With v the gradient that comes in to dz:
 *
 *   dz = dy * a'(z)                      gives   d dy = v * a'(z)     d z = dy * v * a''(z)
 *
 *   y = a(gate) * up, and from it        gives   d dy   = vGate * a'(gate) * up + vUp * a(gate)
 *   dGate = dy * a'(gate) * up                   d gate = dy * (vGate * a''(gate) * up + vUp * a'(gate))
 *   dUp = dy * a(gate)                           d up   = dy * vGate * a'(gate)
 *
 * a' is the kernel itself, and a'' is made of core ops that have derivatives of any order, so this gradient has them
 * too. tfjs's exp, sigmoid, tanh and clipByValue lack them; see smooth_ops.
 */
import {
  abs,
  add,
  cosh,
  div,
  maximum,
  mul,
  onesLike,
  reshape,
  sinh,
  square,
  stack,
  step,
  sub,
  type Tensor,
  unstack,
  zerosLike,
} from '@tensorflow/tfjs-core';
import {hasClamps} from '../contract/expert_weights';
import {type MoeActivationAttrs, MoeGroupedMatMulBackpropActivation} from '../contract/kernel_names';
import {runMoeKernel} from '../contract/run_kernel';
import {atMost} from '../smooth_ops';
import {gradConfig} from './grad_config';
import {zerosFor} from './zero_gradient';

export const moeGroupedMatMulBackpropActivationGradConfig = gradConfig(
  MoeGroupedMatMulBackpropActivation,
  {inputs: ['dy', 'z']},
  ({dz: v}, {dy, z}, activation) => {
    if (z.size === 0) {
      return {dy: zerosFor(dy.shape), z: zerosFor(z.shape)};
    }
    if (!activation.gated) {
      return {
        dy: () => backprop(v, z, activation),
        z: () => timesCurvature(mul(dy, v), z, activation) ?? zerosLike(z),
      };
    }
    return {
      dy: () => {
        const [byGate, byUp] = gateAndUp(mul(v, backprop(onesLike(dy), z, activation)), activation);
        return add(byGate, byUp);
      },
      z: () => gatedBackpropZ(dy, z, v, activation),
    };
  },
);

/** dy * a'(z), gated or not. */
function backprop(dy: Tensor, z: Tensor, activation: MoeActivationAttrs): Tensor {
  return runMoeKernel(MoeGroupedMatMulBackpropActivation, {dy, z}, activation).dz;
}

function gatedBackpropZ(dy: Tensor, z: Tensor, v: Tensor, activation: MoeActivationAttrs): Tensor {
  const [gate, up] = gateAndUp(z, activation);
  const [vGate, vUp] = gateAndUp(v, activation);
  const {clampedGate, gateSlope, factor, factorSlope} = clamped(gate, up, activation);
  const ofGate = {...activation, gated: false};

  const byUp = backprop(mul(mul(dy, mul(vUp, factorSlope)), gateSlope), clampedGate, ofGate);
  const byGate = timesCurvature(mul(mul(dy, mul(vGate, factor)), gateSlope), clampedGate, activation);
  const dUp = mul(backprop(mul(mul(dy, vGate), gateSlope), clampedGate, ofGate), factorSlope);
  return reshape(stack([byGate == null ? byUp : add(byUp, byGate), dUp], pairAxis(activation)), z.shape);
}

/** The columns [R, D] as gates and ups, [R, D/2] each. */
function gateAndUp(columns: Tensor, activation: MoeActivationAttrs): Tensor[] {
  const [numRows, numColumns] = columns.shape;
  const pairs = activation.gateUp === 'concatenated' ? [2, numColumns / 2] : [numColumns / 2, 2];
  return unstack(reshape(columns, [numRows, ...pairs]), pairAxis(activation));
}

function pairAxis({gateUp}: MoeActivationAttrs): number {
  return gateUp === 'concatenated' ? 1 : 2;
}

/** The argument of the activation and its factor, with their derivatives by gate and by up. */
function clamped(gate: Tensor, up: Tensor, attrs: MoeActivationAttrs) {
  const {activation, swigluLimit} = attrs;
  if (!hasClamps(attrs)) {
    return {clampedGate: gate, gateSlope: onesLike(gate), factor: up, factorSlope: onesLike(up)};
  }
  return {
    clampedGate: atMost(gate, swigluLimit),
    gateSlope: isAtMost(gate, swigluLimit),
    factor: add(clamp(up, swigluLimit), activation === 'swigluOai' ? 1 : 0),
    factorSlope: isAtMost(abs(up), swigluLimit),
  };
}

/** 1 if x <= limit, NaN if x is NaN, else 0. */
function isAtMost(x: Tensor, limit: number): Tensor {
  return sub(1, step(sub(x, limit)));
}

function clamp(x: Tensor, limit: number): Tensor {
  return atMost(maximum(x, -limit), limit);
}

/** x * a''(z) without the clamps; undefined if a'' is 0 for every z. */
function timesCurvature(x: Tensor, z: Tensor, activation: MoeActivationAttrs): Tensor | undefined {
  const curvature = curvatureOf(z, activation);
  return curvature && mul(x, curvature);
}

/** Past these limits the second derivatives are 0 in float32. Here the 0 comes from squares, which do not overflow. */
const SIGMOID_LIMIT = 120;
const GELU_LIMIT = 16;
const GELU_SCALE = 2 * Math.sqrt(2 / Math.PI);
const GELU_CUBE = 0.044715;

function curvatureOf(x: Tensor, {activation, swigluAlpha}: MoeActivationAttrs): Tensor | undefined {
  switch (activation) {
    case 'linear':
    case 'relu':
      return undefined;
    case 'relu2':
      return mul(step(x), 2);
    case 'silu':
      return ofFinite(x, timesSigmoidCurvature(clamp(x, SIGMOID_LIMIT), x, onesLike(x), zerosLike(x)));
    case 'swigluOai':
      return ofFinite(
        x,
        timesSigmoidCurvature(
          clamp(x, SIGMOID_LIMIT / Math.abs(swigluAlpha)),
          mul(x, swigluAlpha),
          mul(onesLike(x), swigluAlpha),
          zerosLike(x),
        ),
      );
    case 'gelu': {
      const quarterSquare = mul(square(clamp(x, GELU_LIMIT)), 0.25);
      const inverseRoot = add(cosh(quarterSquare), sinh(quarterSquare));
      const density = square(div((2 * Math.PI) ** -0.25, inverseRoot));
      return ofFinite(x, mul(density, sub(2, mul(quarterSquare, 4))));
    }
    case 'geluTanh': {
      const inside = clamp(x, GELU_LIMIT);
      const value = mul(add(inside, mul(mul(inside, square(inside)), GELU_CUBE)), GELU_SCALE);
      const slope = mul(add(1, mul(square(inside), 3 * GELU_CUBE)), GELU_SCALE);
      return ofFinite(x, timesSigmoidCurvature(inside, value, slope, mul(inside, 6 * GELU_CUBE * GELU_SCALE)));
    }
  }
}

/** The curvature for a finite x; NaN for NaN and infinities. */
function ofFinite(x: Tensor, curvature: Tensor): Tensor {
  return add(curvature, mul(x, 0));
}

/**
 * The second derivative of x * s(w(x)), from w and its first two derivatives. s is the sigmoid:
 * s' = 1 / (2 cosh(w/2))^2 and s'' = -s' * tanh(w/2).
 */
function timesSigmoidCurvature(x: Tensor, w: Tensor, slope: Tensor, curvature: Tensor): Tensor {
  const half = mul(clamp(w, SIGMOID_LIMIT), 0.5);
  const sigmoidSlope = square(div(0.5, cosh(half)));
  const tanh = div(sinh(half), cosh(half));
  return mul(sigmoidSlope, add(mul(slope, 2), mul(x, sub(curvature, mul(tanh, square(slope))))));
}
