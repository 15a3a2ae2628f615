import assert from 'node:assert/strict';
import * as tf from '@tensorflow/tfjs';
import {moePermute} from 'tfjs-moe/ops';
import {workedExample} from './worked_example.mjs';

await assert.rejects(workedExample(tf, moePermute), /backend 'cpu' has no kernel MoePermute/);
await import('tfjs-moe/kernels/cpu');
await workedExample(tf, moePermute);
assert.equal(tf.Tensor.prototype.moePermute, undefined, 'only the main entries add chained methods');
