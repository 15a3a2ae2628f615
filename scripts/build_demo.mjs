/** Builds the live page into a folder that any static host can serve, from any path. */
import {execFileSync} from 'node:child_process';
import {copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, rmSync} from 'node:fs';
import {join} from 'node:path';
import {build} from 'esbuild';
import {bundleForNode} from './bundle.mjs';
import {root} from './set_up.mjs';

const demo = join(root, 'demo');
export const demoFolder = join(root, 'build', 'demo');
const digitFiles = ['held_out.digits', 'training.digits'];

/** Runs a program of this folder that writes files into another one. */
async function write(name, folder) {
  const program = await bundleForNode(name, {entryPoints: [join(root, 'scripts', `${name}.ts`)]});
  execFileSync(process.execPath, [program, folder], {cwd: root, stdio: 'inherit'});
}

/** Gives what esbuild knows of the files. */
export async function buildDemo() {
  mkdirSync(demoFolder, {recursive: true});
  const old = readdirSync(demoFolder).filter((name) => !digitFiles.includes(name));
  old.forEach((name) => rmSync(join(demoFolder, name), {recursive: true}));
  // The digits change with the npm package alone.
  if (!digitFiles.every((name) => existsSync(join(demoFolder, name)))) {
    await write('demo_digits', demoFolder);
  }
  copyFileSync(join(demo, 'index.html'), join(demoFolder, 'index.html'));
  copyFileSync(join(demo, 'digits.safetensors'), join(demoFolder, 'digits.safetensors'));
  cpSync(join(root, 'examples', 'text', 'weights'), join(demoFolder, 'text'), {recursive: true});
  await write('demo_text', join(demoFolder, 'text'));
  const {metafile} = await build({
    entryPoints: [join(demo, 'page.ts'), join(demo, 'page.css'), join(demo, 'engine', 'worker.ts')],
    entryNames: '[name]',
    outdir: demoFolder,
    absWorkingDir: root,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    minify: true,
    metafile: true,
    logLevel: 'error',
  });
  return metafile;
}
