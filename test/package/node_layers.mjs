import assert from 'node:assert/strict';
import * as tfjs from '@tensorflow/tfjs';
import {mixtureOfExperts, MixtureOfExperts, registerMoeLayers} from 'tfjs-moe/layers';
import * as tf from 'tfjs-moe/tf';
import {layersExample} from './layers_example.mjs';

await layersExample(tfjs, mixtureOfExperts);
await layersExample(tf, tf.layers.mixtureOfExperts);
const lost = Object.keys(tfjs.layers).filter((name) => tf.layers[name] !== tfjs.layers[name]);
assert.deepEqual(lost, []);
assert.equal(tf.layers.mixtureOfExperts, mixtureOfExperts, 'entries must share one copy');
assert.equal(registerMoeLayers(tfjs).MixtureOfExperts, MixtureOfExperts);
await layersExample(tfjs, tfjs.layers.mixtureOfExperts);
