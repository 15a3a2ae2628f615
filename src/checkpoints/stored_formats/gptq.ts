/**
 * GPTQ: `<linear>.qweight` int32 [inputs * bits/32, outputs] with codes of inputs from the lowest bits, `.qzeros` int32
 * [groups, outputs * bits/32], `.scales` [groups, outputs], and `.g_idx` int32 [inputs], which act-order shuffles.
 */
import {assert} from '../../arguments/checks';
import {decodeFloats} from '../files/safetensors';
import {assertGroupsInOrder, offsetEncoding, withOffsets, zeroPointEncoding, zerosOfRows} from './input_groups';
import {groupSizeOf, hasMethod, oneOf, quantizationOf} from './quantization_config';
import {checkFits, scaleDtypes, scaleFormatOf, scalesIn, unpacked} from './scales';
import {linearOf, type StoredFormat, TensorFinder, wordsOf} from './stored_format';
import {transposed} from './transposed';

export const gptq: StoredFormat = {
  find: (matrices, {tensors, config, opName}) => {
    const {numOut, numIn} = matrices;
    const linear = linearOf(matrices);
    if (linear == null || !hasMethod(config, 'gptq') || !tensors.has(`${linear}.qweight`)) {
      return undefined;
    }
    const bits = oneOf(config, 'bits', [4, 8] as const, opName);
    const isSymmetric = oneOf(config, 'sym', [false, true], opName);
    const version = oneOf(config, 'checkpoint_format', ['gptq', 'gptq_v2'], opName);
    const groupSize = groupSizeOf(config, numIn, opName);
    const numGroups = Math.ceil(numIn / groupSize);
    const finder = new TensorFinder(tensors);
    const weights = finder.take(`${linear}.qweight`, ['I32'], [(numIn * bits) / 32, numOut]);
    const scales = finder.take(`${linear}.scales`, scaleDtypes, [numGroups, numOut]);
    const zeros = finder.take(`${linear}.qzeros`, ['I32'], [numGroups, (numOut * bits) / 32]);
    const groupName = `${linear}.g_idx`;
    const hasGroups = tensors.has(groupName) || quantizationOf(config)['desc_act'] === true;
    const extras = [scales, zeros, ...(hasGroups ? [finder.take(groupName, ['I32'], [numIn])] : [])];
    const scaleFormat = isSymmetric && finder.problems.length === 0 ? scaleFormatOf(scales) : 'float32';
    const encoding = isSymmetric ? zeroPointEncoding(bits, groupSize, scaleFormat) : offsetEncoding(bits, groupSize);
    checkFits(finder, `${linear}.qweight`, {format: bits === 4 ? 'int4' : 'int8', groupSize}, numIn);
    if (finder.problems.length > 0) {
      return finder;
    }
    /** Version 1 stores zero - 1. */
    const zerosOf = (words: Int32Array): Uint8Array =>
      unpacked(words, bits).map((zero) => (zero + (version === 'gptq' ? 1 : 0)) & (2 ** bits - 1));
    return {
      encoding,
      weights,
      extras,
      hasRows: false,
      decode: (bytes, {firstRow, numRows}, [readScales, readZeros, readGroups]) => {
        if (readGroups != null) {
          assertGroupsInOrder(wordsOf(readGroups), groupSize, groupName, opName);
        }
        const rows = transposed(wordsOf(bytes), (numIn * bits) / 32, numOut, firstRow, numRows);
        const zeroPoints = zerosOfRows(wordsOf(readZeros), numOut, 32 / bits, firstRow, numRows, zerosOf);
        if (isSymmetric) {
          const wrong = zeroPoints.find((zero) => zero !== encoding.zeroPoint);
          assert(
            wrong == null,
            opName,
            () =>
              `${linear}.qzeros must have zeros of ${encoding.zeroPoint}, as config.quantization_config.sym is true, but ` +
              `has ${wrong}.`,
          );
          const read = scalesIn(readScales, scaleFormat);
          return {weights: rows, scales: transposed(read, numGroups, numOut, firstRow, numRows)};
        }
        const values = new Float32Array(numGroups * numOut);
        decodeFloats(scales.dtype, readScales, values);
        return {weights: rows, ...withOffsets(values, zeroPoints, numGroups, numOut, firstRow, numRows)};
      },
    };
  },
};
