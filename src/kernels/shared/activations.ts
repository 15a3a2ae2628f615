/**
 * The activations of all backends, one table: what each is and its derivative, for the host and for shaders. A shader's
 * expression is WGSL and GLSL alike.
 *
 * Everything is made of exp alone. tanh(v) is 2 * sigmoid(2v) - 1, which has no overflow on any device, and erf comes
 * as the normal distribution, Phi(x) = (1 + erf(x / sqrt 2)) / 2, whose lower tail keeps its relative accuracy.
 */
import type {MoeActivationAttrs, MoeKernelActivation} from '../../kernel_names';

/**
 * Phi(-a) = exp(-a*a/2) * p(t) for a >= 0, with t = 1 / (1 + TAIL_SCALE*a) and p the sum of TAIL[i] * t^(i+1): fitted
 * to all a >= 0, with a relative error below 1.4e-8.
 */
const TAIL_SCALE = 0.35;
const TAIL = [
  0.13962980055, 0.13962919024, 0.12255404332, 0.087773969581, 0.048478510003, -0.028666242522, 0.070171863031,
  -0.22675929424, 0.23659874477, -0.10879219242, 0.019381601209,
];

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

function normalTail(a: number): number {
  const t = 1 / (1 + TAIL_SCALE * a);
  return Math.exp(-0.5 * a * a) * TAIL.reduceRight((sum, coefficient) => (sum + coefficient) * t, 0);
}

const normalCdf = (x: number): number => (x < 0 ? normalTail(-x) : 1 - normalTail(x));
const normalDensity = (x: number): number => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);

/** tanh(GELU_SCALE/2 * (x + GELU_CUBE * x^3)) is what GELU's tanh form has in place of erf. */
const GELU_SCALE = 2 * Math.sqrt(2 / Math.PI);
const GELU_CUBE = 0.044715;
const geluSigmoid = (x: number): number => sigmoid(GELU_SCALE * (x + GELU_CUBE * x * x * x));

type Activation = {
  value: (x: number, alpha: number) => number;
  derivative: (x: number, alpha: number) => number;
  shaderValue: string;
  shaderDerivative: string;
};

/** The derivative of x * a, where a is the sigmoid of a v(x) whose own derivative is b. */
const timesSigmoid = (x: number, a: number, b: number): number => a * (1 + x * b * (1 - a));

const activations: Record<MoeKernelActivation, Activation> = {
  linear: {value: (x) => x, derivative: () => 1, shaderValue: 'x', shaderDerivative: '1.0'},
  relu: {
    value: (x) => Math.max(x, 0),
    derivative: (x) => (x > 0 ? 1 : 0),
    shaderValue: 'max(x, 0.0)',
    shaderDerivative: 'max(sign(x), 0.0)',
  },
  silu: {
    value: (x) => x * sigmoid(x),
    derivative: (x) => timesSigmoid(x, sigmoid(x), 1),
    shaderValue: 'x * sigmoid(x)',
    shaderDerivative: 'timesSigmoid(x, sigmoid(x), 1.0)',
  },
  gelu: {
    value: (x) => x * normalCdf(x),
    derivative: (x) => normalCdf(x) + x * normalDensity(x),
    shaderValue: 'x * normalCdf(x)',
    shaderDerivative: `normalCdf(x) + x * exp(-0.5 * x * x) * ${1 / Math.sqrt(2 * Math.PI)}`,
  },
  geluTanh: {
    value: (x) => x * geluSigmoid(x),
    derivative: (x) => timesSigmoid(x, geluSigmoid(x), GELU_SCALE * (1 + 3 * GELU_CUBE * x * x)),
    shaderValue: 'x * geluSigmoid(x)',
    shaderDerivative: `timesSigmoid(x, geluSigmoid(x), ${GELU_SCALE} * (1.0 + ${3 * GELU_CUBE} * x * x))`,
  },
  swigluOai: {
    value: (x, alpha) => x * sigmoid(alpha * x),
    derivative: (x, alpha) => timesSigmoid(x, sigmoid(alpha * x), alpha),
    shaderValue: 'x * sigmoid(swigluAlpha() * x)',
    shaderDerivative: 'timesSigmoid(x, sigmoid(swigluAlpha() * x), swigluAlpha())',
  },
};
const names = Object.keys(activations) as MoeKernelActivation[];

/** The activation on the host: of one value, and of a gate with its up. */
export type HostActivation = {
  value: (z: number) => number;
  derivative: (z: number) => number;
  gatedValue: (gate: number, up: number) => number;
  /** By the gate and by the up. The gradient of a clamp is 1 inside and at the limit, 0 outside. */
  gatedDerivatives: (gate: number, up: number) => [number, number];
};

export function hostActivation({activation, swigluAlpha, swigluLimit}: MoeActivationAttrs): HostActivation {
  const form = activations[activation];
  const value = (z: number) => form.value(z, swigluAlpha);
  const derivative = (z: number) => form.derivative(z, swigluAlpha);
  if (activation !== 'swigluOai') {
    return {
      value,
      derivative,
      gatedValue: (gate, up) => value(gate) * up,
      gatedDerivatives: (gate, up) => [derivative(gate) * up, value(gate)],
    };
  }
  const clampUp = (up: number) => Math.min(Math.max(up, -swigluLimit), swigluLimit);
  return {
    value,
    derivative,
    gatedValue: (gate, up) => value(Math.min(gate, swigluLimit)) * (clampUp(up) + 1),
    gatedDerivatives: (gate, up) => [
      gate > swigluLimit ? 0 : derivative(gate) * (clampUp(up) + 1),
      Math.abs(up) > swigluLimit ? 0 : value(Math.min(gate, swigluLimit)),
    ],
  };
}

/** What shaders select an activation by, as integers: floats go as their bits. */
export function activationUniforms({activation, swigluAlpha, swigluLimit}: MoeActivationAttrs): Record<string, number> {
  const [alphaBits, limitBits] = new Int32Array(Float32Array.of(swigluAlpha, swigluLimit).buffer);
  return {activation: names.indexOf(activation), swigluAlphaBits: alphaBits, swigluLimitBits: limitBits};
}

/** Column of the gate of output o, and how much further its up is. */
export function gateColumns({gateUp}: MoeActivationAttrs, numOutputs: number): {gateStep: number; upStep: number} {
  return gateUp === 'concatenated' ? {gateStep: 1, upStep: numOutputs} : {gateStep: 2, upStep: 1};
}

type ShaderLanguage = {
  define: (name: string, parameters: string[], body: string) => string;
  uniform: (name: string) => string;
  fromBits: (bits: string) => string;
};
const wgsl: ShaderLanguage = {
  define: (name, parameters, body) =>
    `fn ${name}(${parameters.map((parameter) => `${parameter} : f32`).join(', ')}) -> f32 { ${body} }`,
  uniform: (name) => `i32(uniforms.${name})`,
  fromBits: (bits) => `bitcast<f32>(${bits})`,
};
const glsl: ShaderLanguage = {
  define: (name, parameters, body) =>
    `float ${name}(${parameters.map((parameter) => `float ${parameter}`).join(', ')}) { ${body} }`,
  uniform: (name) => name,
  fromBits: (bits) => `intBitsToFloat(${bits})`,
};

/**
 * Shader functions, which read activationUniforms:
 *   activate(x), activateDerivative(x), gatedActivate(gate, up), and gatedDerivativeByGate, gatedDerivativeByUp.
 */
function shaderFunctions({define, uniform, fromBits}: ShaderLanguage): string {
  const selected = (expression: (activation: Activation) => string) =>
    names
      .map((name, i) => `if (${uniform('activation')} == ${i}) { return ${expression(activations[name])}; }`)
      .join(' ')
      .concat(' return x;');
  const isClamped = `${uniform('activation')} == ${names.indexOf('swigluOai')}`;
  const tail = TAIL.reduceRight((sum, coefficient) => `(${coefficient} + t * ${sum})`, '0.0');
  return [
    define('swigluAlpha', [], `return ${fromBits(uniform('swigluAlphaBits'))};`),
    define('swigluLimit', [], `return ${fromBits(uniform('swigluLimitBits'))};`),
    define('sigmoid', ['x'], 'return 1.0 / (1.0 + exp(-x));'),
    define('timesSigmoid', ['x', 'a', 'b'], 'return a * (1.0 + x * b * (1.0 - a));'),
    define('geluSigmoid', ['x'], `return sigmoid(${GELU_SCALE} * (x + ${GELU_CUBE} * x * x * x));`),
    define('tailPolynomial', ['t'], `return t * ${tail};`),
    define('normalTail', ['a'], `return exp(-0.5 * a * a) * tailPolynomial(1.0 / (1.0 + ${TAIL_SCALE} * a));`),
    define('normalCdf', ['x'], 'if (x < 0.0) { return normalTail(-x); } return 1.0 - normalTail(x);'),
    define('activate', ['x'], selected(({shaderValue}) => shaderValue)),
    define('activateDerivative', ['x'], selected(({shaderDerivative}) => shaderDerivative)),
    define('clampedUp', ['up'], `if (${isClamped}) { return clamp(up, -swigluLimit(), swigluLimit()) + 1.0; } return up;`),
    define('clampedGate', ['gate'], `if (${isClamped}) { return min(gate, swigluLimit()); } return gate;`),
    define('gatedActivate', ['gate', 'up'], 'return activate(clampedGate(gate)) * clampedUp(up);'),
    define(
      'gatedDerivativeByGate',
      ['gate', 'up'],
      `if (${isClamped} && gate > swigluLimit()) { return 0.0; } return activateDerivative(gate) * clampedUp(up);`,
    ),
    define(
      'gatedDerivativeByUp',
      ['gate', 'up'],
      `if (${isClamped} && abs(up) > swigluLimit()) { return 0.0; } return activate(clampedGate(gate));`,
    ),
  ].join('\n');
}

export const ACTIVATIONS_WGSL = shaderFunctions(wgsl);
export const ACTIVATIONS_GLSL = shaderFunctions(glsl);
