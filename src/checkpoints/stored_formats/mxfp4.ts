/** MXFP4 as gpt-oss is published: `<name>_blocks` with two E2M1 codes a byte, and `<name>_scales` in e8m0. */
import {encodingOf, type WeightEncoding} from '../../contract/quantized_weights';
import {type StoredFormat, TensorFinder, wordsOf} from './stored_format';

const BLOCK = 32;

const encoding = /* @__PURE__ */ encodingOf<WeightEncoding>({
  format: 'fp4',
  groupSize: BLOCK,
  scaleFormat: 'e8m0',
  zeroPoint: 0,
  hasOffsets: false,
});

export const mxfp4: StoredFormat = {
  find: ({name, numMatrices, numOut, numIn}, {tensors}) => {
    if (!tensors.has(`${name}_blocks`)) {
      return undefined;
    }
    const finder = new TensorFinder(tensors);
    const numBlocks = numIn / BLOCK;
    const blocks = finder.take(`${name}_blocks`, ['U8'], [numMatrices, numOut, numBlocks, BLOCK / 2]);
    const scales = finder.take(`${name}_scales`, ['U8'], [numMatrices, numOut, numBlocks]);
    if (finder.problems.length > 0) {
      return finder;
    }
    return {
      encoding,
      weights: blocks,
      extras: [scales],
      hasRows: true,
      decode: (bytes, {matrix, firstRow, numRows}, [allScales]) => {
        const first = (matrix * numOut + firstRow) * numBlocks;
        return {weights: wordsOf(bytes), scales: allScales.subarray(first, first + numRows * numBlocks)};
      },
    };
  },
};
