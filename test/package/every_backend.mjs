/** The worked example on backends of a browser, for a page and for a worker. */
import {setWasmPaths} from '@tensorflow/tfjs-backend-wasm';
import '@tensorflow/tfjs-backend-webgpu';
import * as tf from 'tfjs-moe/tf';
import {workedExample} from './worked_example.mjs';

export async function runsOn(backendNames) {
  setWasmPaths('node_modules/@tensorflow/tfjs-backend-wasm/dist/');
  for (const name of backendNames) {
    await workedExample(tf, tf.moePermute, name);
    const kernel = tf.tensor2d([[1, -1], [0.5, 2]]);
    const w1 = tf.stack([kernel, tf.neg(kernel)]);
    const merged = tf.fusedMoe(kernel, w1, w1, [[1, 0], [0, 1]], 1, {gated: false, activation: 'relu', renormalize: true});
    const values = JSON.stringify(await merged.array());
    if (tf.getBackend() !== name || values !== '[[2,1],[-1.5,-0.75]]') {
      throw new Error(`fusedMoe on ${tf.getBackend()}, where ${name} was wanted, gave ${values}`);
    }
  }
}
