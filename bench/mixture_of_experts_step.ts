/**
 * A training step of a mixtureOfExperts layer, forward, backward and update, beside the same step with all experts for
 * every token by tf.matMul. The learning rate is 0, so that every step does the same. The gradient of the output is
 * given: that of a loss of tfjs uploads ones of the output's size, for which the GPU waits longer than it works.
 */
import * as tf from '../src/tf';
import {denseMoe} from './fused_moe';
import type {Benchmark} from './harness';

export const mixtureOfExpertsStepBenchmark: Benchmark = {
  relativeError: 1e-3,

  // At least: the tokens and their gradient, the weights, and their gradient and update.
  numBytes: ({T, H, E, I}) => 4 * (4 * T * H + 4 * E * 3 * I * H),

  // The products of both gradients are each as large as the forward one.
  numFlops: ({T, H, K, I}) => 3 * 6 * T * K * H * I,

  contenders: ({T, H, K, E, I}) => {
    const x = tf.randomUniform([T, H], -1, 1, 'float32', 1) as tf.Tensor2D;
    const dy = tf.randomUniform([T, H], -1, 1, 'float32', 2);
    const layer = tf.layers.mixtureOfExperts({
      numExperts: E,
      intermediateSize: I,
      topk: K,
      loadBalancingLossWeight: 0,
      kernelInitializer: tf.initializers.glorotNormal({seed: 3}),
      routerInitializer: tf.initializers.glorotNormal({seed: 4}),
    });
    layer.build([null, H]);
    const ofLayer = layer.trainableWeights.map((weight) => weight.read() as tf.Variable);
    const [routerKernel, w1, w2] = ofLayer.map((weight) => tf.variable(tf.clone(weight)));
    const dense = () => denseMoe(x, w1 as tf.Tensor3D, w2 as tf.Tensor3D, tf.matMul(x, routerKernel as tf.Tensor2D), K);
    const optimizer = tf.train.sgd(0);
    const step = (output: () => tf.Tensor, variables: tf.Variable[]) => () => {
      const {value, grads} = tf.engine().gradients(output, variables, dy);
      optimizer.applyGradients(variables.map(({name}, i) => ({name, tensor: grads[i]})));
      return [value, ...grads];
    };
    const throughLayer = () => layer.apply(x, {training: true}) as tf.Tensor;
    return [
      {name: 'mixtureOfExperts', kind: 'op', hasCoreOps: true, run: step(throughLayer, ofLayer)},
      {name: 'all experts, by tf.matMul', kind: 'plain', run: step(dense, [routerKernel, w1, w2] as tf.Variable[])},
    ];
  },
};
