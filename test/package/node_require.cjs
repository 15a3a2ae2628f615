const assert = require('node:assert/strict');
const tf = require('tfjs-moe/tf');
const {moePermute} = require('tfjs-moe');
const ops = require('tfjs-moe/ops');
require('tfjs-moe/kernels/cpu');

import('./worked_example.mjs').then(async ({chained, workedExample}) => {
  await workedExample(tf, tf.moePermute);
  await workedExample(require('@tensorflow/tfjs'), chained);
  assert.equal(tf.moePermute, moePermute, 'entries must share one copy');
  assert.equal(ops.moePermute, moePermute, 'entries must share one copy');
});
