/** MoeDequantizeWeights on the host. */
import {MoeDequantizeWeights} from '../../contract/kernel_names';
import {numInOf, type QuantizedTensors} from '../../contract/quantized_weights';
import {type HostArray, hostKernel, type HostTensor} from '../shared/host_kernel';
import {dequantizedRows} from '../weight_formats/host';

export const moeDequantizeWeightsCpu = hostKernel(
  MoeDequantizeWeights,
  (inputs, {encoding, firstExpert, numExperts}) => {
    const {codes, scales, offsets} = inputs as QuantizedTensors<HostTensor>;
    const numOut = codes.shape[1];
    const numIn = numInOf(codes, encoding);
    const stored: QuantizedTensors<HostArray> = {
      codes: codes.values,
      scales: scales?.values,
      offsets: offsets?.values,
    };
    const values = dequantizedRows(stored, encoding, numIn, firstExpert * numOut, numExperts * numOut);
    return {weights: {values, shape: [numExperts, numOut, numIn]}};
  },
);
