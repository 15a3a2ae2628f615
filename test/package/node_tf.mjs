import assert from 'node:assert/strict';
import * as tfjs from '@tensorflow/tfjs';
import * as tf from 'tfjs-moe/tf';
import {chained, workedExample} from './worked_example.mjs';

await workedExample(tf, tf.moePermute);
await workedExample(tf, chained);
const lost = Object.keys(tfjs).filter((name) => name !== 'default' && name !== 'module.exports' && !(name in tf));
assert.deepEqual(lost, []);
