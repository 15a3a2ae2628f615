import assert from 'node:assert/strict';
import * as tf from '@tensorflow/tfjs';
import {moePermute} from 'tfjs-moe';
import {moePermute as fromOps} from 'tfjs-moe/ops';
import {moePermute as fromTf} from 'tfjs-moe/tf';
import {chained, workedExample} from './worked_example.mjs';

await workedExample(tf, moePermute);
await workedExample(tf, chained);
assert.equal(fromOps, moePermute, 'entries must share one copy');
assert.equal(fromTf, moePermute, 'entries must share one copy');
