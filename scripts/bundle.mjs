/** Bundles a TypeScript entry of this repository for Node. Needs the npm packages. */
import {spawnSync} from 'node:child_process';
import {rmSync} from 'node:fs';
import {join} from 'node:path';
import {build} from 'esbuild';
import {root} from './set_up.mjs';

/** The path of a bundle of this process alone, so that commands may run beside each other; it goes when they end. */
export function temporaryBundle(name) {
  const path = join(root, 'build', `${name}_${process.pid}.cjs`);
  process.once('exit', () => rmSync(path, {force: true}));
  process.once('SIGINT', () => process.exit(130));
  return path;
}

/** Gives the path of a bundle; `entry` is what esbuild takes as stdin or an entry point. */
export async function bundleForNode(name, entry) {
  const outfile = temporaryBundle(name);
  await build({
    ...entry,
    outfile,
    bundle: true,
    platform: 'node',
    // tfjs is one copy for everybody only if it stays outside the bundle.
    packages: 'external',
    // The sideEffects list of package.json is for those who use the package, not for its own specs and tools.
    ignoreAnnotations: true,
    logLevel: 'error',
  });
  return outfile;
}

/** Bundles a file of the repository and runs it; its exit status becomes this process's. */
export async function runBundled(name, entryPoint, args) {
  const bundle = await bundleForNode(name, {entryPoints: [join(root, entryPoint)]});
  process.exitCode = spawnSync(process.execPath, [bundle, ...args], {stdio: 'inherit'}).status ?? 1;
}
