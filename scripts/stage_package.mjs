/**
 * Writes build/package, the folder to publish: the files that package.json names, and README.md as npm shows it.
 * npm's page resolves relative links against a repository only, so those of README.md become links to the same files
 * of this version on jsDelivr, which serves Markdown as text. No file of the working tree changes: npm reads README.md
 * once more after `postpack`, and `postpack` does not follow a pack that failed, so that neither hook can do this.
 */
import {execFileSync} from 'node:child_process';
import {cpSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {pathToFileURL} from 'node:url';
import {root} from './set_up.mjs';

const {devDependencies, scripts, ...packageJson} = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

export const stagedPackage = join(root, 'build', 'package');

/** Where jsDelivr has the files of the published package. */
export const filesAddress = `https://cdn.jsdelivr.net/npm/${packageJson.name}@${packageJson.version}/`;

/** The Markdown text, with the targets of its relative links and pictures under `filesAddress`; code stays. */
const withAbsoluteLinks = (markdown) =>
  markdown.replace(/(^```[^]*?^```|`[^`]*`)|(?<=\]\()(?!https?:|#)/gm, (_, code) => code ?? filesAddress);

export function stagePackage() {
  rmSync(stagedPackage, {recursive: true, force: true});
  const npmPack = ['pack', '--dry-run', '--json', '--ignore-scripts'];
  const [{files}] = JSON.parse(execFileSync('npm', npmPack, {cwd: root, encoding: 'utf8'}));
  for (const {path} of files) {
    cpSync(join(root, path), join(stagedPackage, path));
  }
  // Nobody who installs the package can run its scripts.
  writeFileSync(join(stagedPackage, 'package.json'), `${JSON.stringify(packageJson, null, 2)}\n`);
  writeFileSync(join(stagedPackage, 'README.md'), withAbsoluteLinks(readFileSync(join(root, 'README.md'), 'utf8')));
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  stagePackage();
}
