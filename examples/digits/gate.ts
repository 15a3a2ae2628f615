import * as tf from '../../src/tf';
import {kMeans, negativeSquaredDistances} from './k_means';

/** The experts of each token and the weight of each choice, both [T, K]. */
export type Routing = {topkIds: tf.Tensor2D; topkWeights: tf.Tensor2D};

/** A router fitted to data: one centroid an expert; the nearer a token is to it, the larger its logit. */
export class Gate {
  private constructor(
    private readonly centroids: tf.Tensor2D,
    private readonly temperature: number,
  ) {}

  static fit(sample: tf.Tensor2D, numExperts: number): Gate {
    const centroids = kMeans(sample, numExperts, 20);
    // Distances in units of the usual one, so that the second choice keeps a weight worth merging.
    const nearest = tf.tidy(() => tf.mean(tf.max(negativeSquaredDistances(sample, centroids), 1)).dataSync()[0]);
    return new Gate(centroids, -nearest);
  }

  route(tokens: tf.Tensor2D, topk: number): Routing {
    return tf.tidy(() => {
      const logits = tf.div(negativeSquaredDistances(tokens, this.centroids), this.temperature);
      const {values, indices} = tf.topk(logits, topk);
      return {topkIds: indices as tf.Tensor2D, topkWeights: tf.softmax(values) as tf.Tensor2D};
    });
  }

  dispose(): void {
    this.centroids.dispose();
  }
}
