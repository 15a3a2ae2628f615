/** All of @tensorflow/tfjs and all of this package in one namespace: `import * as tf from 'tfjs-moe/tf'`. */
export * from '@tensorflow/tfjs';
export * from './index';
