/**
 * MoeQuantizeWeights on WebGL computes on the host, and waits there for the weights. A texture holds integers to 2^24
 * only, so that words of codes can exist on the host alone. Nothing of it can be repeated for other weights.
 */
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {NamedAttrMap, NamedTensorInfoMap, TensorInfo} from '@tensorflow/tfjs-core';
import {moeKernelOutputNames, MoeQuantizeWeights} from '../../contract/kernel_names';
import type {QuantizedTensors} from '../../contract/quantized_weights';
import {byName} from '../../contract/run_kernel';
import {gpuKernel} from '../shared/gpu_kernel';
import {moeQuantizeWeightsCpu} from './cpu';

type Name = typeof MoeQuantizeWeights;

export const moeQuantizeWeightsWebGL = gpuKernel<MathBackendWebGL, Name>(
  MoeQuantizeWeights,
  (backend, inputs, attrs) => {
    const outputs = moeQuantizeWeightsCpu.kernelFunc({
      inputs: inputs as NamedTensorInfoMap,
      attrs: attrs as unknown as NamedAttrMap,
      backend,
    }) as TensorInfo[];
    return byName(moeKernelOutputNames[MoeQuantizeWeights], outputs) as unknown as QuantizedTensors;
  },
);
