import * as tf from '../../src/tf';

/** Adam with a learning rate that may change between steps. tfjs's own Adam keeps its first rate. */
export class AdamWithSchedule extends tf.AdamOptimizer {
  constructor(learningRate: number, beta2 = 0.999) {
    super(learningRate, 0.9, beta2);
  }

  setLearningRate(learningRate: number): void {
    this.learningRate = learningRate;
  }
}
