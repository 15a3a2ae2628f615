import assert from 'node:assert/strict';
import {createRequire} from 'node:module';
import * as tf from '@tensorflow/tfjs';
import {moeGraphModel, registerMoeGraphOps} from 'tfjs-moe/graph';
import {registerMoeGraphOps as ofTf} from 'tfjs-moe/tf';
import {chained, workedExample} from './worked_example.mjs';

await workedExample(tf, chained); // importing the entry has registered the kernels
const weights = {
  routerKernel: tf.tensor2d([[0, 1], [1, 0]]),
  w1: tf.tensor3d([[[1, 0]], [[0, 1]]]),
  w2: tf.tensor3d([[[1], [1]], [[10], [10]]]),
};
const options = {topk: 1, renormalize: true, activation: 'relu', gated: false};
const artifacts = await moeGraphModel(weights, options);
const output = async () => {
  const model = await tf.loadGraphModel(tf.io.fromMemory(artifacts));
  return model.predict(tf.tensor2d([[1, 2], [4, 3]])).array();
};
await assert.rejects(output(), /Unknown op 'FusedMoe'/, 'importing must not register the ops of graphs');

const registrations = [registerMoeGraphOps, ofTf, createRequire(import.meta.url)('tfjs-moe/graph').registerMoeGraphOps];
for (const register of registrations) {
  register();
  assert.deepEqual(await output(), [[1, 1], [30, 30]]);
  tf.deregisterOp('FusedMoe');
}
