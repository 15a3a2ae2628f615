/** The formats of files. A format is one file and one line here. */
import {awq} from './awq';
import {compressedTensors} from './compressed_tensors';
import {floats} from './floats';
import {fp8} from './fp8';
import {ggml} from './ggml';
import {gptq} from './gptq';
import {mxfp4} from './mxfp4';
import type {Matrices, Problems, StoredFiles, StoredFormat, StoredMatrices} from './stored_format';

export {whyFormatIsUnknown} from './quantization_config';

/** Matrices that are in no quantized format are looked for as floats. */
const storedFormats: readonly StoredFormat[] = [mxfp4, compressedTensors, gptq, awq, ggml, fp8];

export function findMatrices(matrices: Matrices, files: StoredFiles): StoredMatrices | Problems {
  for (const {find} of storedFormats) {
    const found = find(matrices, files);
    if (found != null) {
      return found;
    }
  }
  return floats.find(matrices, files)!;
}

/** Whether the files have a tensor of this name, or what a quantized format has in its place. */
export function hasMatrices({tensors}: StoredFiles, name: string): boolean {
  const linear = name.replace(/\.weight$/, '');
  return [name, `${name}_blocks`, `${linear}.weight_packed`, `${linear}.qweight`].some((each) => tensors.has(each));
}
