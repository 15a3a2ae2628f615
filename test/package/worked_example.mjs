/** One example with known values, for every way of loading the package. `moePermute` takes the ops' arguments. */
export async function workedExample(tf, moePermute, backendName = 'cpu') {
  await tf.setBackend(backendName);
  const hiddenStates = tf.tensor2d([[1, 1], [2, 2], [3, 3]]);
  const topkIds = tf.tensor2d([[2, 0], [0, 1], [2, 1]], [3, 2], 'int32');
  const {permutedHiddenStates} = moePermute(hiddenStates, topkIds, 4);
  const rows = JSON.stringify(await permutedHiddenStates.array());
  const gradient = tf.grad((x) => tf.sum(moePermute(x, topkIds, 4).permutedHiddenStates))(hiddenStates);
  const dx = JSON.stringify(await gradient.array());
  if (rows !== '[[1,1],[2,2],[2,2],[3,3],[1,1],[3,3]]' || dx !== '[[2,2],[2,2],[2,2]]') {
    throw new Error(`moePermute gave ${rows} and gradient ${dx}`);
  }
}

export const chained = (x, topkIds, numExperts) => x.moePermute(topkIds, numExperts);
