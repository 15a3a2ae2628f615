/** Builds the guides and the reference into a folder that any static host can serve, from any path. */
import {spawnSync} from 'node:child_process';
import {join} from 'node:path';
import {root} from './set_up.mjs';

export const siteFolder = join(root, 'build', 'site');

/** A link that leads nowhere is an error. */
export function buildSite() {
  const typedoc = join(root, 'node_modules', '.bin', 'typedoc');
  const args = ['--options', join(root, 'site', 'typedoc.json'), '--logLevel', 'Warn'];
  const {status} = spawnSync(typedoc, args, {cwd: root, stdio: 'inherit'});
  if (status !== 0) {
    throw new Error('TypeDoc did not build the site.');
  }
}
