/** What becomes of the blocks of test/golden/checkpoints, read and written in every dtype: for docs/checkpoints.md. */
import {
  type CheckpointTensors,
  type FloatDtype,
  moeCheckpoint,
  moeCheckpointFiles,
  type MoeModelConfig,
  readSafetensors,
} from '../src/checkpoints/index';
import * as tf from '../src/tf';

export type GoldenCase = {
  name: string;
  config: MoeModelConfig;
  file: Uint8Array;
  recorded: {layerIndex: number; input: number[][]; output: number[][]};
};

/** Whether the block that is read gives what transformers gave, and whether it is written as it was. */
export type RoundTrip = {isEqual: boolean; written: {[dtype in FloatDtype]: boolean}};

const formats = {F16: 'float16', BF16: 'bfloat16'} as const;

export async function roundTrip({config, file, recorded}: GoldenCase): Promise<RoundTrip> {
  await tf.setBackend('cpu');
  const {layerIndex, input, output} = recorded;
  const base = await readSafetensors(file);
  const block = await moeCheckpoint(base, config, {layerIndex, format: 'float32'});
  const x = tf.tensor2d(input);
  const product = tf.matMul(x, block.routerKernel);
  const logits = block.routerBias == null ? product : tf.add(product, block.routerBias);
  const given = tf.fusedMoe(x, block.w1, block.w2, logits as tf.Tensor2D, block.topk, block.options);
  const difference = tf.max(tf.abs(tf.sub(given, output))).dataSync()[0];
  const largest = Math.max(...output.flat().map(Math.abs));

  const isStoredAsFloats = [...base.values()].every(({dtype}) => dtype === 'F32');
  const written = {} as RoundTrip['written'];
  for (const dtype of ['F32', 'BF16', 'F16'] as const) {
    const files = await moeCheckpointFiles({[layerIndex]: block}, config, {dtype, base});
    const again = await readSafetensors(files['model.safetensors']);
    if (dtype === 'F32' && isStoredAsFloats) {
      written[dtype] = await areSameBytes(again, base);
    } else {
      const {w1, w2} = await moeCheckpoint(again, JSON.parse(await files['config.json'].text()) as MoeModelConfig, {
        layerIndex,
        format: 'float32',
      });
      const isRounded = (weights: tf.Tensor3D, wanted: tf.Tensor3D) => {
        const format = dtype === 'F32' ? undefined : formats[dtype];
        const rounded = format == null ? wanted : tf.moeDequantizeWeights(tf.moeQuantizeWeights(wanted, {format}));
        return tf.util.arraysEqual(weights.dataSync(), rounded.dataSync());
      };
      written[dtype] = isRounded(w1, block.w1) && isRounded(w2, block.w2);
    }
  }
  return {isEqual: difference <= 1e-5 * largest, written};
}

async function areSameBytes(given: CheckpointTensors, wanted: CheckpointTensors): Promise<boolean> {
  const bytesOf = async (tensors: CheckpointTensors, name: string) => {
    const {bytes} = tensors.get(name)!;
    return ArrayBuffer.isView(bytes) ? bytes : new Uint8Array(await bytes.slice(0, bytes.size).arrayBuffer());
  };
  for (const name of wanted.keys()) {
    const [a, b] = await Promise.all([bytesOf(given, name), bytesOf(wanted, name)]);
    if (a.length !== b.length || a.some((byte, i) => byte !== b[i])) {
      return false;
    }
  }
  return given.size === wanted.size;
}
