import {moeSum} from 'tfjs-moe/ops';

globalThis.sum = moeSum;
