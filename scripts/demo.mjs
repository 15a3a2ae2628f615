/** `npm run demo`: builds the live page, and serves it. */
import {join} from 'node:path';
import {parseCommandLine} from './command_line.mjs';
import {ensureNpmPackages, root} from './set_up.mjs';

const usage = `npm run demo [-- --port n]       builds the live page and serves it on this machine
npm run demo -- --build           only builds it: a folder for any static host
npm run demo -- --weights         trains its digits anew, in two minutes, and writes demo/digits.safetensors
                                  [--backend cpu|webgpu]`;

const {flags} = parseCommandLine(usage, {
  port: {type: 'string', default: '0'},
  build: {type: 'boolean'},
  weights: {type: 'boolean'},
  backend: {type: 'string', default: 'cpu'},
});
ensureNpmPackages();

if (flags.weights) {
  const {runBundled} = await import('./bundle.mjs');
  const file = join(root, 'demo', 'digits.safetensors');
  await runBundled('demo_weights', 'scripts/demo_weights.ts', [file, flags.backend]);
} else {
  const {buildDemo, demoFolder} = await import('./build_demo.mjs');
  await buildDemo();
  if (flags.build) {
    console.log(`The page is in ${demoFolder}.`);
  } else {
    const {serveFolder} = await import('./serve_folder.mjs');
    const {url} = await serveFolder(demoFolder, Number(flags.port));
    console.log(`The page is at\n\n  ${url}\n\nCtrl+C ends it.`);
  }
}
