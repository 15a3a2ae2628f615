import * as tf from '@tensorflow/tfjs';
import 'tfjs-moe';
import {chained, workedExample} from './worked_example.mjs';

globalThis.check = () => workedExample(tf, chained);
