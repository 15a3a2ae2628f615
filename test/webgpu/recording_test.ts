/** Kernels that repeat what they did for other tensors of the same shapes. */
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectFloats} from '../support/expect';
import {expectNothingKeptOfManyShapes, specsOfRepeatedKernels} from '../support/repeated_kernels';

const webgpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'webgpu'};

describeWithFlags('a kernel that has run before on WebGPU', webgpu, () => {
  specsOfRepeatedKernels();

  it('takes other dtypes', async () => {
    for (const dtype of ['float32', 'int32', 'float32'] as const) {
      const rows = tf.tensor2d([[1, 2], [3, 4]], [2, 2], dtype);
      const {permutedHiddenStates} = tf.moePermute(rows, [[1], [0]], 2);
      expect(permutedHiddenStates.dtype).toBe(dtype);
      await expectFloats(tf.cast(permutedHiddenStates, 'float32'), [3, 4, 1, 2], dtype);
    }
  });

  it('keeps nothing of many shapes', () => {
    const {bufferManager} = tf.backend() as WebGPUBackend;
    return expectNothingKeptOfManyShapes(() => bufferManager.getNumUsedBuffers());
  });
});
