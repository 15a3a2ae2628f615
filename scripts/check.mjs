/** `npm run check`: types, lint, import rules, and every spec in Node.js, without a browser. */
import {createRequire} from 'node:module';
import {availableParallelism} from 'node:os';
import {join} from 'node:path';
import {fail, parseCommandLine} from './command_line.mjs';
import {ensureNpmPackages, root} from './set_up.mjs';

const usage = `npm run check -- [spec …] [--backend cpu|webgpu] [--watch]

With names, only the spec files whose path contains one of them, and no other check: npm run check -- moe_permute.
webgpu runs on Dawn, on a software GPU where there is one. --watch runs them again after each change.
npm test is the whole: all backends, in browsers.`;

const options = {backend: {type: 'string', default: 'cpu'}, watch: {type: 'boolean', default: false}};
const {flags, words: names} = parseCommandLine(usage, options, true);
if (!['cpu', 'webgpu'].includes(flags.backend)) {
  fail(`--backend must be cpu or webgpu in Node.js, but is '${flags.backend}'. npm test runs the others.`);
}

ensureNpmPackages();
const {context} = await import('esbuild');
const {temporaryBundle} = await import('./bundle.mjs');
const {checkSources, printCounts, runner} = await import('./checks.mjs');
const {specFiles, specPlugins} = createRequire(import.meta.url)('../test/runner/bundle_specs.js');

/** Specs of test/browser need one. */
const isChosen = (file) =>
  !file.startsWith('browser') && (names.length === 0 || names.some((name) => file.includes(name)));
const chosenFiles = () => specFiles().filter(isChosen);
if (chosenFiles().length === 0) {
  fail(`No spec file for Node.js has ${names.join(' or ')} in its path below test/.`);
}

const runSpecs = (bundle) =>
  runner(`specs on ${flags.backend}`, process.execPath, [bundle, flags.backend], {isShown: true});

/** Bundles the spec files and calls `onBuilt` with the bundle's path: once, or with --watch after each change. */
async function bundle(name, filesOf, onBuilt) {
  const outfile = temporaryBundle(name);
  const built = await context({
    entryPoints: [join(root, 'test', 'node.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node20',
    // tfjs's modules, of which its own test tools import single files, and not its bundles: one copy of each.
    mainFields: ['module', 'main'],
    external: ['jasmine-core', 'webgpu'],
    logLevel: 'error',
    ignoreAnnotations: true,
    plugins: [
      ...specPlugins(filesOf),
      {
        name: 'built',
        setup(build) {
          build.onEnd(async ({errors}) => {
            if (errors.length === 0) {
              await onBuilt(outfile);
            }
          });
        },
      },
    ],
  });
  if (flags.watch) {
    await built.watch();
  } else {
    await built.rebuild();
    await built.dispose();
  }
}

if (flags.watch) {
  await bundle('specs', chosenFiles, runSpecs);
} else {
  const isWhole = names.length === 0;
  const specs = bundle('specs', chosenFiles, runSpecs);
  if (availableParallelism() === 1) {
    await specs;
  }
  await Promise.all([specs, isWhole ? checkSources() : null]);
  printCounts();
}
