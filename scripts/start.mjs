/**
 * `npm start`: trains a small mixture of experts on handwritten digits, with and without the balancing loss.
 *
 *     npm start [-- --backend cpu|webgpu] [--digits n] [--epochs n]                    in Node.js
 *     npm start -- chromium|firefox [--backend webgpu|webgl|cpu] [--digits n] [--epochs n]    in that browser
 *     npm start -- page                                                                serves the page for yours
 */
import {parseArgs} from 'node:util';
import {ensureNpmPackages} from './set_up.mjs';

const {values: flags, positionals} = parseArgs({
  allowPositionals: true,
  options: {backend: {type: 'string'}, digits: {type: 'string'}, epochs: {type: 'string'}},
});
const [place = 'node', ...others] = positionals;
if (!['node', 'chromium', 'firefox', 'page'].includes(place) || others.length > 0) {
  throw new Error(`npm start runs in node, chromium or firefox, or serves a page, but was given '${positionals.join(' ')}'.`);
}
ensureNpmPackages();

if (place === 'node') {
  const {runBundled} = await import('./bundle.mjs');
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
  await runBundled('digits', 'examples/digits/main.ts', args);
} else {
  const {serveExample} = await import('./serve_example.mjs');
  const served = await serveExample();
  const address = `${served.url}?${new URLSearchParams(flags)}`;
  if (place === 'page') {
    console.log(`The example is at ${address}; ?backend=webgpu, webgl or cpu chooses. Ctrl+C ends it.`);
  } else {
    const {runPage} = await import('./serve_page.mjs');
    const {error} = await runPage(served, address, place).catch(({message}) => ({error: message}));
    if (error != null) {
      console.error(error);
      process.exitCode = 1;
    }
  }
}
