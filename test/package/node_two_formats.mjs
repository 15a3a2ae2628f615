import assert from 'node:assert/strict';
import {createRequire} from 'node:module';
import * as tf from '@tensorflow/tfjs';
import {moePermute} from 'tfjs-moe';
import {chained, workedExample} from './worked_example.mjs';

const kernelsOf = (copy) => tf.getKernelsForBackend(copy).length;
const before = ['cpu', 'wasm', 'tensorflow'].map(kernelsOf);
const second = createRequire(import.meta.url)('tfjs-moe');
assert.deepEqual(['cpu', 'wasm', 'tensorflow'].map(kernelsOf), before);
assert.notEqual(second.moePermute, moePermute, 'these should be two copies');
await workedExample(tf, moePermute);
await workedExample(tf, second.moePermute);
await workedExample(tf, chained);
