/** How messages show a given value. These checks are the ones that every op uses for numbers, booleans and names. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {describeValue} from '../../src/arguments/checks';

const untyped = (value: unknown) => value as never;
const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

class Box {
  constructor(public readonly value: unknown) {}
}

describeWithFlags('describeValue', cpu, () => {
  const values: Array<[value: unknown, text: string]> = [
    [2, '2'],
    [NaN, 'NaN'],
    [true, 'true'],
    [null, 'null'],
    [undefined, 'undefined'],
    ['2', "the string '2'"],
    ['', "the string ''"],
    [2n, 'the bigint 2'],
    [[2], 'the array [2]'],
    [['2', [1, [0]]], "the array ['2', [1, […]]]"],
    [[], 'the array []'],
    [{topk: 2, of: {a: {b: 1}}}, 'the object {topk: 2, of: {a: {…}}}'],
    [Object.create(null), 'the object {}'],
    [{constructor: 7}, 'the object {constructor: 7}'],
    [new Box(1), 'a Box'],
    [new Map(), 'a Map'],
    [() => 2, 'a Function'],
    [Symbol('two'), 'a Symbol'],
    [new Float32Array(3), 'a Float32Array of 3 values'],
    [new Int32Array(3), 'an Int32Array of 3 values'],
    ['x'.repeat(1000), `the string '${'x'.repeat(60)}…'`],
    [new Array(1e6).fill(0), 'the array [0, 0, 0, 0, 0, 0, 0, 0, …]'],
    [Object.fromEntries(Array.from({length: 9}, (_, i) => [`k${i}`, 'y'.repeat(70)])),
      `the object {${Array.from({length: 8}, (_, i) => `k${i}: '${'y'.repeat(60)}…'`).join(', ')}, …}`],
  ];
  for (const [value, text] of values) {
    it(text.slice(0, 80), () => {
      expect(describeValue(value)).toBe(text);
    });
  }

  it('a tensor', () => {
    expect(describeValue(tf.zeros([2, 3], 'int32'))).toBe('an int32 tensor [2,3]');
  });
});

describeWithFlags('a string in place of a number or a boolean', cpu, () => {
  const x = () => tf.zeros<tf.Rank.R2>([2, 4]);
  const ids = [[0, 1], [1, 0]];
  const experts = () => [tf.zeros([2, 4, 4]), tf.zeros([2, 4, 2])] as const;
  const layer = (args: object) => () => tf.layers.mixtureOfExperts(untyped({numExperts: 2, intermediateSize: 2, ...args}));
  const integer = (name: string) => `${name} must be a positive integer, but is the string '2'.`;
  const boolean = (name: string) => `${name} must be a boolean, but is the string 'true'.`;
  const calls: Array<[call: () => unknown, message: string]> = [
    [() => tf.moePermute(x(), ids, untyped('2')), `moePermute: ${integer('numExperts')}`],
    [() => tf.moePermute(x(), ids, 2, {alignBlockSize: untyped('2')}), `moePermute: ${integer('alignBlockSize')}`],
    [() => tf.moePermute(x(), ids, 2, {numLocalExperts: untyped('2')}), `moePermute: ${integer('numLocalExperts')}`],
    [() => tf.moePermute(x(), ids, 2, {fillInvalidExpert: untyped('2')}),
      "moePermute: fillInvalidExpert must be an integer that fits int32, but is the string '2'."],
    [() => tf.moePermute(x(), ids, 2, untyped('2')), 'moePermute: options must be an object with any of a1qScale, ' +
      "numLocalExperts, expertMap, alignBlockSize, fillInvalidExpert, out, but is the string '2'."],
    [() => tf.moePermuteBlockAligned(x(), ids, 2, untyped('2')), `moePermuteBlockAligned: ${integer('blockSize')}`],
    [() => tf.moeAlignBlockSize(ids, untyped('2'), 2), `moeAlignBlockSize: ${integer('blockSize')}`],
    [() => tf.moeAlignBlockSize(ids, 2, 2, {padSortedIds: untyped('true')}), `moeAlignBlockSize: ${boolean('padSortedIds')}`],
    [() => tf.moeUnpermuteAndReduce(x(), [[1, 0]], null, {applyRouterWeightOnInput: untyped('true')}),
      `moeUnpermuteAndReduce: ${boolean('applyRouterWeightOnInput')}`],
    [() => tf.moeTopk(x(), untyped('2')), `moeTopk: ${integer('topk')}`],
    [() => tf.moeTopk(x(), 2, {renormalize: untyped('true')}), `moeTopk: ${boolean('renormalize')}`],
    [() => tf.moeTopk(x(), 2, {numExpertGroups: untyped('2'), topkGroups: 1}), `moeTopk: ${integer('numExpertGroups')}`],
    [() => tf.moeTopk(x(), 2, {routedScalingFactor: untyped('2')}),
      "moeTopk: routedScalingFactor must be a number that fits float32, but is the string '2'."],
    [() => tf.moeGroupedMatMul(x(), tf.zeros([1, 2, 4]), [0, 2], {swigluLimit: untyped('2')}),
      "moeGroupedMatMul: swigluLimit must be a positive number, but is the string '2'."],
    [() => tf.moeGroupedMatMul(x(), tf.zeros([1, 2, 4]), [0, 2], {activation: untyped(['silu'])}),
      'moeGroupedMatMul: activation must be one of linear, relu, relu2, silu, swish, gelu, geluTanh, geluNew, swigluOai, but is ' +
      "the array ['silu']."],
    [() => tf.fusedExperts(x(), ...experts(), ids, ids, {gated: untyped('true')}), `fusedExperts: ${boolean('gated')}`],
    [() => tf.fusedMoe(x(), ...experts(), ids, untyped('2')), `fusedMoe: ${integer('topk')}`],
    [() => tf.moeExpertMap(untyped('2'), 1, 0), `moeExpertMap: ${integer('numExperts')}`],
    [() => tf.moeExpertMap(2, 1, untyped('0')),
      "moeExpertMap: shard must be an integer from 0 to numShards - 1 (0), but is the string '0'."],
    [layer({numExperts: '2'}), `mixtureOfExperts: ${integer('numExperts')}`],
    [layer({useBias: 'true'}), `mixtureOfExperts: ${boolean('useBias')}`],
    [layer({capacityFactor: '2'}), "mixtureOfExperts: capacityFactor must be a positive number, but is the string '2'."],
    [layer({loadBalancingLossWeight: '2'}),
      "mixtureOfExperts: loadBalancingLossWeight must be a number of at least 0 that fits float32, but is the string '2'."],
  ];
  for (const [call, message] of calls) {
    it(message, () => {
      expect(call).toThrowMatching(({message: given}: Error) => given.startsWith(`Error in ${message}`));
    });
  }
});
