/** Writes the digits of the live page into a folder: labels, then pixels of 0..255, a byte each, compressed. */
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {gzipSync} from 'node:zlib';
import {type Digits, sliceDigits} from '../examples/digits/digits';
import {readDigits} from '../examples/digits/read_digits';

const NUM_TRAINING = 2500;
/** The last digits, which the trained weights have not seen either. */
const NUM_HELD_OUT = 500;

const [folder] = process.argv.slice(2);
const digits = readDigits();

function write(name: string, {pixels, labels}: Digits): void {
  const bytes = Buffer.from([...labels, ...pixels.map((value) => Math.round(255 * value))]);
  writeFileSync(join(folder, name), gzipSync(bytes, {level: 9}));
}

write('training.digits', sliceDigits(digits, 0, NUM_TRAINING));
write('held_out.digits', sliceDigits(digits, digits.labels.length - NUM_HELD_OUT));
