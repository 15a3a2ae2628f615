/**
 * The activations of all backends, one table: what each is and its derivative, for the host and for shaders. A shader's
 * expression is WGSL and GLSL alike.
 *
 * Everything is made of exp alone. tanh(v) is 2 * sigmoid(2v) - 1, which has no overflow on any device, and erf comes
 * as the normal distribution, Phi(x) = (1 + erf(x / sqrt 2)) / 2, whose lower tail keeps its relative accuracy.
 *
 * NaN and infinities go where core ops of tfjs take them on the host: NaN in, NaN out, and 0 * Infinity is NaN. A
 * shader language may compile as if they did not exist. So shaders look for them in the bits of what comes in, and
 * compute with finite values that do not overflow on the way.
 */
import {hasClamps} from '../../contract/expert_weights';
import type {MoeActivationAttrs, MoeKernelActivation} from '../../contract/kernel_names';

/**
 * Phi(-a) = exp(-a*a/2) * p(t) for a >= 0, with t = 1 / (1 + TAIL_SCALE*a) and p the sum of TAIL[i] * t^(i+1): fitted
 * to all a >= 0, with a relative error below 1.4e-8.
 */
const TAIL_SCALE = 0.35;
const TAIL = [
  0.13962980055, 0.13962919024, 0.12255404332, 0.087773969581, 0.048478510003, -0.028666242522, 0.070171863031,
  -0.22675929424, 0.23659874477, -0.10879219242, 0.019381601209,
];

/** 1 above the limit, 0 up to it, NaN of NaN: the derivative of max(x, limit), as tf.step is that of tf.relu. */
const isAbove = (x: number, limit: number): number => (x > limit ? 1 : x <= limit ? 0 : NaN);

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

/** Past this both forms of GELU are 0 or x for float32: shaders take no square and no cube of more. */
const GELU_LIMIT = 16;

type Activation = {
  value: (x: number, alpha: number) => number;
  derivative: (x: number, alpha: number) => number;
  /** Of a finite x. */
  shaderValue: string;
  shaderDerivative: string;
  /** Whether it is x times what is 0 far below: -Infinity * 0 is NaN, and so are derivatives at infinities. */
  isProduct: boolean;
};

/** The derivative of x * sigmoid(v(x)), where a is that sigmoid and b is x * v'(x). */
const timesSigmoid = (a: number, b: number): number => a * (1 + b * (1 - a));

const activations: Record<MoeKernelActivation, Activation> = {
  linear: {value: (x) => x, derivative: () => 1, shaderValue: 'x', shaderDerivative: '1.0', isProduct: false},
  relu: {
    value: (x) => Math.max(x, 0),
    derivative: (x) => isAbove(x, 0),
    shaderValue: 'max(x, 0.0)',
    shaderDerivative: 'max(sign(x), 0.0)',
    isProduct: false,
  },
  relu2: {
    // As float32: what overflows is Infinity before it meets another factor.
    value: (x) => Math.fround(Math.max(x, 0) ** 2),
    derivative: (x) => Math.fround(2 * Math.max(x, 0)),
    shaderValue: 'max(x, 0.0) * max(x, 0.0)',
    shaderDerivative: '2.0 * max(x, 0.0)',
    isProduct: false,
  },
  silu: {
    value: (x) => x * sigmoid(x),
    derivative: (x) => timesSigmoid(sigmoid(x), x),
    shaderValue: 'x * sigmoid(x)',
    shaderDerivative: 'timesSigmoid(sigmoid(x), x)',
    isProduct: true,
  },
  gelu: {
    value: (x) => x * normalCdf(x),
    derivative: (x) => normalCdf(x) + x * normalDensity(x),
    shaderValue: 'x * normalCdf(x)',
    shaderDerivative: `normalCdf(x) + geluInside(x) * exp(-0.5 * geluInside(x) * geluInside(x)) * ${1 / Math.sqrt(2 * Math.PI)}`,
    isProduct: true,
  },
  geluTanh: {
    value: (x) => x * geluSigmoid(x),
    derivative: (x) => timesSigmoid(geluSigmoid(x), GELU_SCALE * (x + 3 * GELU_CUBE * x * x * x)),
    shaderValue: `x * sigmoid(${GELU_SCALE} * withCube(geluInside(x), ${GELU_CUBE}))`,
    shaderDerivative:
      `timesSigmoid(sigmoid(${GELU_SCALE} * withCube(geluInside(x), ${GELU_CUBE})), ` +
      `${GELU_SCALE} * withCube(geluInside(x), ${3 * GELU_CUBE}))`,
    isProduct: true,
  },
  swigluOai: {
    value: (x, alpha) => x * sigmoid(alpha * x),
    derivative: (x, alpha) => timesSigmoid(sigmoid(alpha * x), alpha * x),
    shaderValue: 'x * sigmoid(timesAlpha(x))',
    shaderDerivative: 'timesSigmoid(sigmoid(timesAlpha(x)), timesAlpha(x))',
    isProduct: true,
  },
};
const names = Object.keys(activations) as MoeKernelActivation[];

/** The activation on the host: of one value, and of a gate with its up. */
export type HostActivation = {
  value: (z: number) => number;
  derivative: (z: number) => number;
  gatedValue: (gate: number, up: number) => number;
  /** By the gate and by the up. The gradient of a clamp is 1 inside and at the limit, 0 outside, and NaN of NaN. */
  gatedDerivatives: (gate: number, up: number) => [number, number];
};

export function hostActivation(attrs: MoeActivationAttrs): HostActivation {
  const {activation, swigluAlpha, swigluLimit} = attrs;
  const form = activations[activation];
  const value = (z: number) => form.value(z, swigluAlpha);
  const derivative = (z: number) => form.derivative(z, swigluAlpha);
  if (!hasClamps(attrs)) {
    return {
      value,
      derivative,
      gatedValue: (gate, up) => value(gate) * up,
      gatedDerivatives: (gate, up) => [derivative(gate) * up, value(gate)],
    };
  }
  const clampGate = (gate: number) => Math.min(gate, swigluLimit);
  const shift = activation === 'swigluOai' ? 1 : 0;
  const factorOf = (up: number) => Math.min(Math.max(up, -swigluLimit), swigluLimit) + shift;
  const isInside = (x: number) => 1 - isAbove(x, swigluLimit);
  return {
    value,
    derivative,
    gatedValue: (gate, up) => value(clampGate(gate)) * factorOf(up),
    gatedDerivatives: (gate, up) => [
      isInside(gate) * derivative(clampGate(gate)) * factorOf(up),
      isInside(Math.abs(up)) * value(clampGate(gate)),
    ],
  };
}

/** What shaders select 'silu' with clamps by. */
const CLAMPED_SILU = names.length;

/** What shaders select an activation by, as integers: floats go as their bits. */
export function activationUniforms(attrs: MoeActivationAttrs): Record<string, number> {
  const {activation, swigluAlpha, swigluLimit} = attrs;
  const [alphaBits, limitBits] = new Int32Array(Float32Array.of(swigluAlpha, swigluLimit).buffer);
  const code = activation === 'silu' && hasClamps(attrs) ? CLAMPED_SILU : names.indexOf(activation);
  return {activation: code, swigluAlphaBits: alphaBits, swigluLimitBits: limitBits};
}

/** Column of the gate of output o, and how much further its up is. */
export function gateColumns({gateUp}: MoeActivationAttrs, numOutputs: number): {gateStep: number; upStep: number} {
  return gateUp === 'concatenated' ? {gateStep: 1, upStep: numOutputs} : {gateStep: 2, upStep: 1};
}

type ShaderLanguage = {
  define: (name: string, parameters: string[], body: string) => string;
  uniform: (name: string) => string;
  /** A float that goes as its bits. */
  floatUniform: (name: string) => string;
  toBits: (value: string) => string;
  fromBits: (bits: string) => string;
  /** Without a branch: where these functions are inlined, the matmul's sums need the registers. */
  select: (condition: string, ifTrue: string, ifFalse: string) => string;
};
const wgsl: ShaderLanguage = {
  define: (name, parameters, body) =>
    `fn ${name}(${parameters.map((parameter) => `${parameter} : f32`).join(', ')}) -> f32 { ${body} }`,
  uniform: (name) => `i32(uniforms.${name})`,
  floatUniform: (name) => `bitcast<f32>(uniforms.${name})`,
  toBits: (value) => `bitcast<u32>(${value})`,
  fromBits: (bits) => `bitcast<f32>(${bits})`,
  select: (condition, ifTrue, ifFalse) => `select(${ifFalse}, ${ifTrue}, ${condition})`,
};
const glsl: ShaderLanguage = {
  define: (name, parameters, body) =>
    `float ${name}(${parameters.map((parameter) => `float ${parameter}`).join(', ')}) { ${body} }`,
  uniform: (name) => name,
  floatUniform: (name) => `intBitsToFloat(${name})`,
  toBits: (value) => `floatBitsToUint(${value})`,
  fromBits: (bits) => `uintBitsToFloat(${bits})`,
  select: (condition, ifTrue, ifFalse) => `(${condition} ? ${ifTrue} : ${ifFalse})`,
};

const isNan = ({toBits}: ShaderLanguage, x: string) => `(${toBits(x)} & 0x7fffffffu) > 0x7f800000u`;
const isFinite = ({toBits}: ShaderLanguage, x: string) => `(${toBits(x)} & 0x7fffffffu) < 0x7f800000u`;
const isActivation = ({uniform}: ShaderLanguage, name: MoeKernelActivation) =>
  `${uniform('activation')} == ${names.indexOf(name)}`;
const isClampedSilu = ({uniform}: ShaderLanguage) => `${uniform('activation')} == ${CLAMPED_SILU}`;
const isWithClamps = (language: ShaderLanguage) =>
  `${isActivation(language, 'swigluOai')} || ${isClampedSilu(language)}`;
/** A function's body: the expression of the activation that is selected. */
const selected = (language: ShaderLanguage, expression: (name: MoeKernelActivation) => string): string =>
  names
    .map((name) => {
      const isSelected = isActivation(language, name);
      const condition = name === 'silu' ? `${isSelected} || ${isClampedSilu(language)}` : isSelected;
      return `if (${condition}) { return ${expression(name)}; }`;
    })
    .join('\n')
    .concat(' return x;');

/** The functions that the expressions of `activations` call. */
function shaderTerms({define, floatUniform, toBits, fromBits, select}: ShaderLanguage): string[] {
  const tail = TAIL.reduceRight((sum, coefficient) => `(${coefficient} + t * ${sum})`, '0.0');
  return [
    define('swigluAlpha', [], `return ${floatUniform('swigluAlphaBits')};`),
    define('swigluLimit', [], `return ${floatUniform('swigluLimitBits')};`),
    define('nanOf', ['x'], `return ${fromBits(`${toBits('x')} | 0x7fc00000u`)};`),
    // NaN of NaN and of -Infinity, Infinity of Infinity.
    define(
      'productOfNonFinite',
      ['x'],
      `return ${fromBits(`${toBits('x')} | ${select(`${toBits('x')} == 0xff800000u`, '0x7fc00000u', '0u')}`)};`,
    ),
    define('clampTo', ['x', 'limit'], 'return clamp(x, -limit, limit);'),
    // exp does not overflow.
    define('sigmoid', ['x'], `return ${select('x < 0.0', 'exp(-abs(x))', '1.0')} / (1.0 + exp(-abs(x)));`),
    define('timesSigmoid', ['a', 'b'], 'return a * (1.0 + b * (1.0 - a));'),
    // The largest that alpha times does not overflow.
    define('timesAlpha', ['x'], 'return swigluAlpha() * clampTo(x, 1e38 / max(abs(swigluAlpha()), 1.0));'),
    define('geluInside', ['x'], `return clampTo(x, ${GELU_LIMIT}.0);`),
    define('withCube', ['x', 'coefficient'], 'return x + coefficient * x * x * x;'),
    define('tailPolynomial', ['t'], `return t * ${tail};`),
    define('normalTail', ['a'], `return exp(-0.5 * a * a) * tailPolynomial(1.0 / (1.0 + ${TAIL_SCALE} * a));`),
    define('cdfOf', ['x', 'tail'], `return ${select('x < 0.0', 'tail', '1.0 - tail')};`),
    define('normalCdf', ['x'], 'return cdfOf(x, normalTail(abs(geluInside(x))));'),
  ];
}

/** activate(x), and clampedGate(gate) and clampedUp(up), for activate(clampedGate(gate)) * clampedUp(up). */
function shaderValue(language: ShaderLanguage): string[] {
  const {define, select} = language;
  const orNan = (x: string, otherwise: string) => select(isNan(language, x), x, otherwise);
  const clamped = (x: string, value: string) =>
    `if (${isWithClamps(language)}) { return ${orNan(x, value)}; } return ${x};`;
  const shift = select(isClampedSilu(language), '0.0', '1.0');
  return [
    define(
      'activate',
      ['x'],
      selected(language, (name) => {
        const {shaderValue: value, isProduct} = activations[name];
        if (name === 'linear') {
          return value;
        }
        return isProduct ? select(isFinite(language, 'x'), value, 'productOfNonFinite(x)') : orNan('x', value);
      }),
    ),
    define('clampedGate', ['gate'], clamped('gate', 'min(gate, swigluLimit())')),
    define('clampedUp', ['up'], clamped('up', `clampTo(up, swigluLimit()) + ${shift}`)),
  ];
}

/** activateDerivative(x), gatedDerivativeByGate(gate, up) and gatedDerivativeByUp(gate, up). */
function shaderDerivatives(language: ShaderLanguage): string[] {
  const {define, select} = language;
  return [
    define(
      'activateDerivative',
      ['x'],
      selected(language, (name) => {
        const {shaderDerivative: derivative, isProduct} = activations[name];
        if (name === 'linear') {
          return derivative;
        }
        return isProduct
          ? select(isFinite(language, 'x'), derivative, 'nanOf(x)')
          : select(isNan(language, 'x'), 'x', derivative);
      }),
    ),
    define(
      'isInside',
      ['x'],
      `return ${select(isNan(language, 'x'), 'x', select('x > swigluLimit()', '0.0', '1.0'))};`,
    ),
    define(
      'gatedDerivativeByGate',
      ['gate', 'up'],
      `if (${isWithClamps(language)}) { return isInside(gate) * activateDerivative(clampedGate(gate)) * clampedUp(up); }
       return activateDerivative(gate) * up;`,
    ),
    define(
      'gatedDerivativeByUp',
      ['gate', 'up'],
      `if (${isWithClamps(language)}) { return isInside(abs(up)) * activate(clampedGate(gate)); }
       return activate(gate);`,
    ),
  ];
}

/**
 * Shader functions, which read activationUniforms. The activation is selected as they run: a program for each took a
 * software GPU three times as long to compile, and a real GPU as long to run.
 */
const activationFunctions = (language: ShaderLanguage) =>
  [...shaderTerms(language), ...shaderValue(language)].join('\n');
export const ACTIVATIONS_WGSL = activationFunctions(wgsl);
export const ACTIVATIONS_GLSL = activationFunctions(glsl);
export const ACTIVATION_DERIVATIVES_WGSL = shaderDerivatives(wgsl).join('\n');
export const ACTIVATION_DERIVATIVES_GLSL = shaderDerivatives(glsl).join('\n');
