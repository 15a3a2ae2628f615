/** A model with the layer trains, predicts, saves and loads, for every way of loading it. `tf` is any tfjs. */
export async function layersExample(tf, mixtureOfExperts) {
  await tf.setBackend('cpu');
  const experts = mixtureOfExperts({numExperts: 4, intermediateSize: 3, dropPolicy: 'position', inputShape: [5]});
  const model = tf.sequential({layers: [experts, tf.layers.dense({units: 1})]});
  model.compile({optimizer: 'sgd', loss: 'meanSquaredError'});
  const x = tf.randomNormal([8, 5]);
  const {history} = await model.fit(x, tf.ones([8, 1]), {epochs: 2, verbose: 0});
  const load = await experts.expertLoad().array();
  if (!history.loss.every(Number.isFinite) || load.reduce((sum, count) => sum + count) !== 16) {
    throw new Error(`the losses are ${history.loss}, the load is ${load}`);
  }

  let saved;
  await model.save(tf.io.withSaveHandler(async (artifacts) => {
    saved = artifacts;
    return {modelArtifactsInfo: {dateSaved: new Date(), modelTopologyType: 'JSON'}};
  }));
  const loaded = await tf.loadLayersModel(tf.io.fromMemory(saved));
  const [wanted, given] = await Promise.all([model.predict(x).data(), loaded.predict(x).data()]);
  if (wanted.length !== 8 || wanted.some((value, i) => value !== given[i])) {
    throw new Error(`the model predicts ${wanted}, but loaded ${given}`);
  }
}
