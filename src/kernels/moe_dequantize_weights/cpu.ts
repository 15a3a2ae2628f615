/** MoeDequantizeWeights and MoeDequantizeRows on the host. */
import {util} from '@tensorflow/tfjs-core';
import {MoeDequantizeRows, MoeDequantizeWeights} from '../../contract/kernel_names';
import {runningOpName} from '../../contract/op_name';
import {numInOf, type QuantizedTensors} from '../../contract/quantized_weights';
import {type HostArray, hostKernel, type HostTensor} from '../shared/host_kernel';
import {dequantizedRows, rowDecoder} from '../weight_formats/host';

export const moeDequantizeWeightsCpu = hostKernel(
  MoeDequantizeWeights,
  (inputs, {encoding, firstExpert, numExperts}) => {
    const tensors = inputs as QuantizedTensors<HostTensor>;
    const numOut = tensors.codes.shape[1];
    const numIn = numInOf(tensors.codes, encoding);
    const values = dequantizedRows(valuesOf(tensors), encoding, numIn, firstExpert * numOut, numExperts * numOut);
    return {weights: {values, shape: [numExperts, numOut, numIn]}};
  },
);

export const moeDequantizeRowsCpu = hostKernel(MoeDequantizeRows, (inputs, {encoding}) => {
  const {rows, ...tensors} = inputs as QuantizedTensors<HostTensor> & {rows: HostTensor};
  const [numExperts, numOut] = tensors.codes.shape;
  const numIn = numInOf(tensors.codes, encoding);
  const numRows = rows.values.length;
  const values = new Float32Array(numRows * numIn);
  const decodeRow = rowDecoder(valuesOf(tensors), encoding, numIn);
  rows.values.forEach((row, r) => {
    util.assert(
      row >= 0 && row < numExperts * numOut,
      () => `Error in ${runningOpName(MoeDequantizeRows)}: row ${row} must be in 0..${numExperts * numOut - 1}.`,
    );
    decodeRow(row, values, r * numIn);
  });
  return {out: {values, shape: [numRows, numIn]}};
});

const valuesOf = ({codes, scales, offsets}: QuantizedTensors<HostTensor>): QuantizedTensors<HostArray> => ({
  codes: codes.values,
  scales: scales?.values,
  offsets: offsets?.values,
});
