import * as tf from '../../src/tf';

const BETA_1 = 0.9;

/**
 * Adam with a learning rate that may change between steps: tfjs's own keeps its first rate. All variables together are
 * one vector here, so that a step takes few launches on a GPU: 25 and two for each variable, in place of 14 for each.
 */
export class AdamWithSchedule extends tf.Optimizer {
  static className = 'AdamWithSchedule';
  private numSteps = 0;
  /** Running means of the gradient and of its square. */
  private means: {gradient: tf.Tensor1D; square: tf.Tensor1D} | undefined;

  constructor(
    private learningRate: number,
    private readonly beta2 = 0.999,
  ) {
    super();
  }

  setLearningRate(learningRate: number): void {
    this.learningRate = learningRate;
  }

  /** In every step the gradients must be of the same variables, in the same order. */
  override applyGradients(given: Parameters<tf.Optimizer['applyGradients']>[0]): void {
    const named = Array.isArray(given) ? given : Object.entries(given).map(([name, tensor]) => ({name, tensor}));
    tf.tidy(() => {
      const change = this.changeFor(tf.concat1d(named.map(({tensor}) => tf.reshape(tensor, [-1]))));
      let start = 0;
      for (const {name, tensor} of named) {
        const variable = tf.engine().registeredVariables[name];
        const ofVariable = tf.reshape(tf.slice1d(change, start, tensor.size), tensor.shape);
        variable.assign(tf.sub(variable, ofVariable));
        start += tensor.size;
      }
    });
  }

  /** What a step takes off the variables, whose gradients are in `gradient` one after the other. */
  private changeFor(gradient: tf.Tensor1D): tf.Tensor1D {
    const before = this.means ?? {gradient: tf.zerosLike(gradient), square: tf.zerosLike(gradient)};
    const towards = (mean: tf.Tensor1D, value: tf.Tensor1D, beta: number): tf.Tensor1D =>
      tf.keep(tf.add(mean, tf.mul(tf.sub(value, mean), 1 - beta)));
    this.means = {
      gradient: towards(before.gradient, gradient, BETA_1),
      square: towards(before.square, tf.square(gradient), this.beta2),
    };
    tf.dispose(before);
    this.numSteps++;
    // The means begin at 0, and are too small by these factors.
    const ofSquare = Math.sqrt(1 - this.beta2 ** this.numSteps);
    const ofGradient = 1 - BETA_1 ** this.numSteps;
    const deviation = tf.add(tf.sqrt(this.means.square), tf.backend().epsilon() * ofSquare);
    return tf.mul(tf.div(this.means.gradient, deviation), (this.learningRate * ofSquare) / ofGradient);
  }

  override dispose(): void {
    tf.dispose(this.means);
    super.dispose();
  }

  override getConfig(): tf.serialization.ConfigDict {
    return {learningRate: this.learningRate, beta2: this.beta2};
  }
}
