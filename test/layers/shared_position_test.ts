/** The place of the next position, which the caches of all attention layers share on a backend. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {sharedPosition} from '../../src/layers/shared_position';
import * as tf from '../../src/tf';
import {expectInts} from '../support/expect';

describeWithFlags('the shared position', ALL_ENVS, ({backendName}) => {
  async function resetEngine(): Promise<void> {
    const isTest = tf.env().getBool('IS_TEST');
    tf.engine().reset();
    // The reset takes flags along.
    tf.env().set('IS_TEST', isTest);
    await tf.setBackend(backendName);
    // The suite's own scope went with the reset, and its end is near.
    tf.engine().startScope();
  }

  it('is one tensor for all caches, until another position is asked for', async () => {
    const [first, second] = [sharedPosition(), sharedPosition()];
    first.acquire();
    second.acquire();
    const position = first.at(3);
    await expectInts(position, [3], 'position');
    expect(second.at(3)).toBe(position);
    await expectInts(second.at(4), [4], 'next position');
    expect(position.isDisposed).toBeTrue();
    first.release();
    const last = second.at(4);
    expect(last.isDisposed).toBeFalse();
    second.release();
    expect(last.isDisposed).toBeTrue();
  });

  it('is a new one after tf.engine().reset(), whose users do not count those of before', async () => {
    const before = sharedPosition();
    before.acquire();
    before.at(3);
    await resetEngine();
    const after = sharedPosition();
    after.acquire();
    const position = after.at(3);
    await expectInts(position, [3], 'position');
    before.release();
    expect(position.isDisposed).toBeFalse();
    after.release();
    expect(position.isDisposed).toBeTrue();
    expect(tf.memory().numTensors).toBe(0);
  });

  it('serves layers that decode before and after tf.engine().reset()', async () => {
    const attend = async (): Promise<void> => {
      const layer = tf.layers.causalSelfAttention({numHeads: 1, kernelInitializer: 'zeros', useOutputBias: true, biasInitializer: 'ones'});
      layer.apply(tf.zeros([1, 1, 2]));
      const cache = layer.makeCache(1, 4);
      await expectInts(tf.cast(layer.attend(tf.ones([1, 1, 2]), cache), 'int32'), [1, 1], 'output');
    };
    await attend();
    await resetEngine();
    await attend();
  });
});
