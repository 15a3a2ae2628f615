const assert = require('node:assert/strict');
const tfjs = require('@tensorflow/tfjs');
const {mixtureOfExperts} = require('tfjs-moe/layers');
const tf = require('tfjs-moe/tf');

import('./layers_example.mjs').then(async ({layersExample}) => {
  await layersExample(tfjs, mixtureOfExperts);
  await layersExample(tf, tf.layers.mixtureOfExperts);
  assert.equal(tf.layers.mixtureOfExperts, mixtureOfExperts, 'entries must share one copy');
});
