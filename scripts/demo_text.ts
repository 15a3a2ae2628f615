/** Writes what the language model of the live page learns from, and a passage that is held out, compressed. */
import {mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {gzipSync} from 'node:zlib';
import {splitText} from '../examples/text/characters';

/** Four windows, each with the character after it. */
const PASSAGE_LENGTH = 4 * 64 + 1;

const [folder] = process.argv.slice(2);
const {training, heldOut} = splitText(readFileSync('examples/text/kjv.txt', 'utf8'));
const write = (name: string, text: string): void => writeFileSync(join(folder, name), gzipSync(text, {level: 9}));

mkdirSync(folder, {recursive: true});
write('training.text', training);
write('held_out.text', heldOut.slice(0, PASSAGE_LENGTH));
