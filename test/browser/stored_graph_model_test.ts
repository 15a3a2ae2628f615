/** The specs in this folder run in browsers only, because Node.js has no store of the browser. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {moeGraphModel, registerMoeGraphOps} from '../../src/graph/index';
import * as tf from '../../src/tf';
import {expectFloats} from '../support/expect';

describeWithFlags('the artifacts of moeGraphModel', ALL_ENVS, () => {
  it('go through a store of the browser', async () => {
    registerMoeGraphOps();
    const routerKernel = tf.tensor2d([[0, 1], [1, 0]]);
    const w1 = tf.tensor3d([[[1, 0]], [[0, 1]]]);
    const w2 = tf.tensor3d([[[1], [1]], [[10], [10]]]);
    const options = {topk: 1, renormalize: true, activation: 'relu', gated: false} as const;
    const model = await tf.loadGraphModel(tf.io.fromMemory(await moeGraphModel({routerKernel, w1, w2}, options)));
    await model.save('localstorage://moe-graph-model');
    const stored = await tf.loadGraphModel('localstorage://moe-graph-model');
    await expectFloats(stored.predict(tf.tensor2d([[1, 2], [4, 3]])) as tf.Tensor, [1, 1, 30, 30], 'output');
    await tf.io.removeModel('localstorage://moe-graph-model');
  });
});
