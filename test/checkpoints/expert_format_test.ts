/** Layers and GraphModels of a checkpoint, with experts as the files have them. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {checkpointGoldens} from 'checkpoint-goldens';
import {loadMoeCheckpoint, moeCheckpoint, moeExpertFormat, moeLayerConfig} from '../../src/checkpoints/index';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';

const expectClose = (actual: tf.Tensor, wanted: number[][], what: string) => {
  const largest = Math.max(...wanted.flat().map(Math.abs));
  return expectWithin(actual, wanted, () => 1e-5 * largest, what);
};

describeWithFlags('a checkpoint in a layer and in a GraphModel', ALL_ENVS, () => {
  it('keeps MXFP4 as it is, and gives what transformers gives', async () => {
    const {config, file, recorded} = checkpointGoldens['gpt_oss_mxfp4'];
    const {layerIndex, input, output} = recorded!;
    const format = await moeExpertFormat(file!, config, {layerIndex});
    expect(format).toEqual({
      expertFormat: 'fp4', expertGroupSize: 32, expertScaleFormat: 'e8m0', expertZeroPoint: null, useExpertOffsets: false,
    });
    const layer = tf.layers.mixtureOfExperts({...moeLayerConfig(config), ...format, inputShape: [input[0].length]});
    const model = tf.sequential({layers: [layer]});
    await loadMoeCheckpoint(layer, new Blob([file! as BlobPart]), config, {layerIndex});
    const block = await moeCheckpoint(file!, config, {layerIndex});
    const codes = layer.weights.findIndex(({originalName}) => originalName.endsWith('w1_codes'));
    expect([...await layer.getWeights()[codes].data()]).toEqual([...await (block.w1 as tf.QuantizedWeights).codes.data()]);
    await expectClose(model.predict(tf.tensor2d(input)) as tf.Tensor, output, 'the layer');
  });

  it('says that files of floats are float32 in a layer', async () => {
    const {config, file, recorded} = checkpointGoldens['mixtral'];
    expect(await moeExpertFormat(file!, config, {layerIndex: recorded!.layerIndex})).toEqual({expertFormat: 'float32'});
    await expectAsync(moeExpertFormat(file!, config, {layerIndex: 9})).toBeRejectedWithError(/^Error in moeExpertFormat: the checkpoint must have/);
  });

  it('makes a GraphModel, with shared experts and with codes', async () => {
    tf.registerMoeGraphOps();
    for (const name of ['qwen2_moe', 'gpt_oss_mxfp4']) {
      const {config, file, recorded} = checkpointGoldens[name];
      const {layerIndex, input, output} = recorded!;
      const {routerKernel, routerBias, w1, w2, topk, options} = await moeCheckpoint(file!, config, {layerIndex});
      const {w1Bias, w2Bias, scoreCorrectionBias, sharedExperts, ...routing} = options;
      const artifacts = await tf.moeGraphModel(
        {routerKernel, routerBias, w1: w1 as tf.Tensor3D, w2: w2 as tf.Tensor3D, w1Bias, w2Bias, scoreCorrectionBias, sharedExperts},
        {topk, ...routing});
      const model = await tf.loadGraphModel(tf.io.fromMemory(artifacts));
      await expectClose(model.predict(tf.tensor2d(input)) as tf.Tensor, output, name);
      model.dispose();
    }
  });
});
