import * as tf from '../../src/tf';

/** -|row - centroid|² for every row and centroid. */
export function negativeSquaredDistances(rows: tf.Tensor2D, centroids: tf.Tensor2D): tf.Tensor2D {
  return tf.tidy(() => {
    const rowNorms = tf.sum(tf.square(rows), 1, true);
    const centroidNorms = tf.sum(tf.square(centroids), 1);
    const products = tf.matMul(rows, centroids, false, true);
    return tf.sub(tf.sub(tf.mul(products, 2), rowNorms), centroidNorms);
  });
}

/** Lloyd's algorithm from evenly spaced rows, so that the same rows give the same centroids. */
export function kMeans(rows: tf.Tensor2D, numClusters: number, numSteps: number): tf.Tensor2D {
  return tf.tidy(() => {
    const spacing = Math.floor(rows.shape[0] / numClusters);
    let centroids = tf.gather(rows, tf.range(0, numClusters * spacing, spacing, 'int32'));
    for (let step = 0; step < numSteps; step++) {
      const previous = centroids;
      centroids = tf.tidy(() => {
        const nearest = tf.argMax(negativeSquaredDistances(rows, previous), 1) as tf.Tensor1D;
        const members = tf.oneHot(nearest, numClusters, 1, 0, 'float32') as tf.Tensor2D;
        const counts = tf.reshape(tf.sum(members, 0), [numClusters, 1]);
        const means = tf.div(tf.matMul(members, rows, true), tf.maximum(counts, 1));
        // A centroid that no row is nearest to stays where it is.
        return tf.where(tf.greater(counts, 0), means, previous) as tf.Tensor2D;
      });
      previous.dispose();
    }
    return centroids;
  });
}
