/** Steps of decoding that webgpu repeats without the JavaScript of layers and ops. */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {modelGoldens} from 'model-goldens';
import {generate, loadMoeLanguageModel} from '../../src/models/index';
import * as tf from '../../src/tf';
import {countApplications, oneAtATime, PROMPT} from '../support/recorded_steps';

const load = (name: string) => loadMoeLanguageModel(modelGoldens[name].file, modelGoldens[name].config);

describeWithFlags('a step that has been recorded', ALL_ENVS, () => {
  it('gives the tokens of steps that are not, and applies no layer', async () => {
    const model = await load('mixtral');
    const wanted = await oneAtATime(model, 6);
    const applied = countApplications(model);
    const counts: number[] = [];
    const onToken = () => counts.push(applied());
    expect(await generate(model, PROMPT, {maxNewTokens: 6, onToken})).toEqual(wanted);
    // The prompt, a step, and the step that is recorded.
    expect(counts[2]).toBeGreaterThan(counts[1]);
    expect(counts.slice(3)).toEqual(counts.slice(3).map(() => counts[3]));
  });

  it('changes the values of a tensor that was kept of it, also after they were read', async () => {
    const model = await load('mixtral');
    const kept: tf.Tensor[] = [];
    model.getLayer('head').setCallHook((inputs) => {
      kept.push(tf.keep(tf.mul([inputs].flat()[0] as tf.Tensor, 2)));
    });
    const reads: Promise<tf.TypedArray>[] = [];
    // Half of the reads arrive after the next step.
    const onToken = (): unknown => {
      const read = kept[kept.length - 1].data();
      reads.push(read);
      return reads.length % 2 === 0 ? read : undefined;
    };
    await generate(model, PROMPT, {maxNewTokens: 7, onToken});
    const seen = (await Promise.all(reads)).map((values) => values[values.length - 1]);
    expect(new Set(seen).size).toBe(7);
    expect(kept.length).toBe(3);
    tf.dispose(kept);
  });

  it('leaves no tensor and no buffer', async () => {
    const model = await load('granitemoe');
    const {bufferManager} = tf.backend() as WebGPUBackend;
    const memory = () => ({
      numTensors: tf.memory().numTensors,
      numUsed: bufferManager.getNumUsedBuffers(),
      numBytes: (tf.memory() as tf.MemoryInfo & {numBytesAllocatedInGPU: number}).numBytesAllocatedInGPU,
    });
    const steps = () => generate(model, PROMPT, {maxNewTokens: 8});
    await steps();
    await steps();
    const before = memory();
    await steps();
    await steps();
    expect(memory()).toEqual(before);
  });

  it('is recorded anew for other weights', async () => {
    const model = await load('mixtral');
    const head = model.getLayer('head');
    const [kernel] = head.getWeights().map((weight) => tf.keep(tf.clone(weight)));
    const reversed = tf.keep(tf.reverse(kernel, 1));
    const wanted = await generate(model, PROMPT, {maxNewTokens: 5});
    let heard = 0;
    const onToken = () => {
      heard++;
      if (heard === 5) {
        head.setWeights([reversed]);
        // Their places are for others now.
        tf.fill(kernel.shape, 7);
      }
    };
    const tokens = await generate(model, PROMPT, {maxNewTokens: 6, onToken});
    expect(tokens.slice(0, 5)).toEqual(wanted);
    const [after] = await generate(model, [...PROMPT, ...wanted], {maxNewTokens: 1});
    expect(tokens[5]).toBe(after);
  });

  it('is recorded anew after kernels gave back what they held', async () => {
    const model = await load('mixtral');
    const wanted = await generate(model, PROMPT, {maxNewTokens: 6});
    let heard = 0;
    const onToken = () => {
      heard++;
      if (heard === 5) {
        for (let rows = 1; rows <= 200; rows++) {
          tf.dispose(tf.moePermute(tf.ones([rows, 2]), tf.zeros([rows, 1], 'int32'), 2));
          tf.dispose(tf.moeTopk(tf.ones([rows, 4]), 2));
        }
      }
    };
    expect(await generate(model, PROMPT, {maxNewTokens: 6, onToken})).toEqual(wanted);
  });

  it('is not repeated while programs are timed', async () => {
    const model = await load('mixtral');
    const wanted = await generate(model, PROMPT, {maxNewTokens: 6});
    let tokens: number[] = [];
    const {kernels} = await tf.profile(async () => {
      tokens = await generate(model, PROMPT, {maxNewTokens: 6});
      return tf.scalar(0);
    });
    expect(tokens).toEqual(wanted);
    expect(kernels.filter(({name}) => name === 'MoeCachedAttention').length).toBeGreaterThan(10);
  });
});
