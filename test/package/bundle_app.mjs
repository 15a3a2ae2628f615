import * as tf from '@tensorflow/tfjs';
import {moePermute} from 'tfjs-moe';
import * as all from 'tfjs-moe/tf';
import {chained, workedExample} from './worked_example.mjs';

globalThis.check = async () => {
  await workedExample(tf, moePermute);
  await workedExample(tf, chained);
  await workedExample(all, all.moePermute);
};
