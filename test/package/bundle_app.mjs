import * as tf from '@tensorflow/tfjs';
import {moePermute} from 'tfjs-moe';
import {mixtureOfExperts} from 'tfjs-moe/layers';
import * as all from 'tfjs-moe/tf';
import {layersExample} from './layers_example.mjs';
import {chained, workedExample} from './worked_example.mjs';

globalThis.check = async () => {
  await workedExample(tf, moePermute);
  await workedExample(tf, chained);
  await workedExample(all, all.moePermute);
  await layersExample(tf, mixtureOfExperts);
  await layersExample(all, all.layers.mixtureOfExperts);
};
