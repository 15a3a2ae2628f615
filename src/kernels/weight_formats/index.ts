/** The formats of weights. A format is one file and one line here, and its bits in contract/quantized_weights.ts. */
import type {QuantizedFormat} from '../../contract/quantized_weights';
import {bfloat16} from './bfloat16';
import {float16} from './float16';
import {float8} from './float8';
import {fp4} from './fp4';
import {int4} from './int4';
import {int8} from './int8';
import type {WeightFormat} from './weight_format';

export type {WeightFormat} from './weight_format';

export const weightFormats: Readonly<Record<QuantizedFormat, WeightFormat>> = {
  int4,
  int8,
  fp4,
  float8,
  float16,
  bfloat16,
};
