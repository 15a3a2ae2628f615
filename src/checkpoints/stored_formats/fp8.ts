/** float8 in blocks, as DeepSeek-V3 and Qwen3 have it: `<name>` in E4M3, and `<name>_scale_inv`, which multiplies. */
import {encodingOf, type WeightEncoding} from '../../contract/quantized_weights';
import {blockSizeOf} from './quantization_config';
import {checkFits, scaleDtypes, scaleFormatOf, scalesIn, scalesOfRows} from './scales';
import {type StoredFormat, TensorFinder, wordsOf} from './stored_format';

export const fp8: StoredFormat = {
  find: ({name, shape, numOut, numIn, isTransposed}, {tensors, config, opName}) => {
    const scaleName = `${name}_scale_inv`;
    if (isTransposed || !(tensors.has(scaleName) || tensors.get(name)?.dtype === 'F8_E4M3')) {
      return undefined;
    }
    const finder = new TensorFinder(tensors);
    const [rowsPerScale, inputsPerScale] = blockSizeOf(config, opName);
    const groupSize = Math.min(inputsPerScale, numIn);
    const numGroups = Math.ceil(numIn / groupSize);
    const weights = finder.take(name, ['F8_E4M3'], shape);
    const scales = finder.take(scaleName, scaleDtypes, [
      ...shape.slice(0, -2),
      Math.ceil(numOut / rowsPerScale),
      numGroups,
    ]);
    checkFits(finder, name, {format: 'float8', groupSize}, numIn);
    if (finder.problems.length > 0) {
      return finder;
    }
    const scaleFormat = scaleFormatOf(scales);
    return {
      encoding: encodingOf<WeightEncoding>({format: 'float8', groupSize, scaleFormat, zeroPoint: 0, hasOffsets: false}),
      weights,
      extras: [scales],
      hasRows: true,
      decode: (bytes, at, [read]) => ({
        weights: wordsOf(bytes),
        scales: scalesOfRows(scalesIn(read, scaleFormat), scaleFormat, at, {numOut, rowsPerScale, numGroups}),
      }),
    };
  },
};
