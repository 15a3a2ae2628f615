/** Windows of a text, and the loss of a model on them. */
import * as tf from '../../src/tf';

/**
 * The loss in nats a character: -log of the probability of the next one. `targets` are one-hot [B, S, V]. The gradient
 * of core ops would upload as many ones as there are logits.
 */
export const crossEntropy = (targets: tf.Tensor, logits: tf.Tensor): tf.Tensor =>
  tf.customGrad((...args) => {
    const [given, save] = args as unknown as [tf.Tensor, (tensors: tf.Tensor[]) => void];
    save([given]);
    return {
      value: tf.mean(tf.sub(tf.logSumExp(given, -1), tf.sum(tf.mul(targets, given), -1))),
      gradFunc: (dy: tf.Tensor, [saved]: tf.Tensor[]) => {
        const ofCharacter = tf.div(dy, saved.size / saved.shape[saved.rank - 1]);
        return tf.mul(tf.sub(tf.softmax(saved), targets), ofCharacter);
      },
    };
  })(logits);

export type Windows = {ids: tf.Tensor2D; targets: tf.Tensor3D};

/** Windows of a text: ids [B, S], and the characters that follow each, one-hot [B, S, V]. */
export function windowsOf(
  text: readonly number[],
  starts: readonly number[],
  windowLength: number,
  alphabetSize: number,
): Windows {
  return tf.tidy(() => {
    const rows = starts.map((start) => text.slice(start, start + windowLength + 1));
    const characters = tf.tensor2d(rows, [starts.length, windowLength + 1], 'int32');
    const ids = tf.slice(characters, [0, 0], [-1, windowLength]);
    const next = tf.slice(characters, [0, 1], [-1, windowLength]);
    // A cast, because on wasm tf.oneHot takes the dtype but writes integers.
    return {ids, targets: tf.cast(tf.oneHot(next, alphabetSize), 'float32') as tf.Tensor3D};
  });
}

/** Places spread evenly over 0..end-1. */
export const evenStarts = (end: number, count: number): number[] =>
  Array.from({length: count}, (_, i) => Math.floor((i * end) / count));

export const randomStarts = (end: number, batchSize: number): number[] =>
  Array.from({length: batchSize}, () => Math.floor(Math.random() * end));

/** The loss, without what the layers add to it in the training. All windows are one batch, for the experts' load. */
export async function bitsPerCharacter(model: tf.LayersModel, {ids, targets}: Windows): Promise<number> {
  const loss = tf.tidy(() => crossEntropy(targets, model.predict(ids, {batchSize: ids.shape[0]}) as tf.Tensor));
  const [nats] = await loss.data();
  loss.dispose();
  return nats / Math.LN2;
}
