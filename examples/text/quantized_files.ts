/** A model as files of Hugging Face whose experts are in the format compressed-tensors. */
import * as tf from '../../src/tf';

/** Formats of experts, and the bits of a weight. */
export const expertFormats = {int4: 4, int8: 8} as const;
export type ExpertFormat = keyof typeof expertFormats;

/** How many weights share a scale. */
const GROUP_SIZE = 32;

const nameOfMatrix = /\.experts\.\d+\.w[123]\.weight$/;

/** Blobs by file name, as of languageModelFiles. All but the experts is in float16. */
export async function quantizedFiles(
  model: tf.LayersModel,
  config: tf.MoeModelConfig,
  format: ExpertFormat,
): Promise<{[fileName: string]: Blob}> {
  const tensorsIn = async (dtype: tf.FloatDtype): Promise<tf.CheckpointTensors> =>
    tf.readSafetensors((await tf.languageModelFiles(model, config, {dtype}))['model.safetensors']);
  const written = await tensorsIn('F16');
  for (const [name, matrix] of await tensorsIn('F32')) {
    if (nameOfMatrix.test(name)) {
      written.delete(name);
      const {codes, scales} = await quantized(matrix, format);
      written.set(name.replace(/weight$/, 'weight_packed'), codes);
      written.set(name.replace(/weight$/, 'weight_scale'), scales);
    }
  }
  const told = {...config, dtype: 'float16', quantization_config: quantizationConfig(expertFormats[format])};
  return {
    'config.json': new Blob([`${JSON.stringify(told, null, 2)}\n`]),
    'model.safetensors': await tf.writeSafetensors(written),
  };
}

const quantizationConfig = (numBits: number) => ({
  quant_method: 'compressed-tensors',
  format: 'pack-quantized',
  config_groups: {
    group_0: {
      targets: ['re:.*experts.*'],
      weights: {num_bits: numBits, type: 'int', symmetric: true, strategy: 'group', group_size: GROUP_SIZE},
    },
  },
});

/** Words of codes and float16 scales of a matrix. The format has both as moeQuantizeWeights makes them. */
async function quantized(matrix: tf.CheckpointTensor, format: ExpertFormat) {
  const [numOut, numIn] = matrix.shape;
  const values = await tf.safetensorsValues(matrix);
  const weights = tf.tensor3d(values, [1, numOut, numIn]);
  const made = tf.moeQuantizeWeights(weights, {format, groupSize: GROUP_SIZE, scaleFormat: 'float16'});
  const [codes, scales] = await Promise.all([made.codes as tf.Tensor, made.scales as tf.Tensor].map((x) => x.data()));
  tf.dispose([weights, made]);
  const numGroups = Math.ceil(numIn / GROUP_SIZE);
  const tensor = (dtype: string, shape: number[], {buffer, byteOffset}: ArrayBufferView, numBytes: number) => ({
    dtype,
    shape,
    bytes: new Uint8Array(buffer as ArrayBuffer, byteOffset, numBytes),
  });
  return {
    codes: tensor('I32', [numOut, (numIn * expertFormats[format]) / 32], codes, codes.byteLength),
    scales: tensor('F16', [numOut, numGroups], scales, 2 * numOut * numGroups),
  };
}
