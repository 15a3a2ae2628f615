/**
 * `npm run check`: types, lint, import rules, and every spec in Node.js, without a browser.
 *
 *     npm run check -- [spec …] [--backend cpu|webgpu] [--watch]
 *
 * With names, only the spec files whose path contains one of them, and no other check: `npm run check -- moe_permute`.
 * webgpu runs on Dawn, on a software GPU where there is no other. `npm test` is the whole: all backends, in browsers.
 */
import {spawn} from 'node:child_process';
import {createRequire} from 'node:module';
import {availableParallelism} from 'node:os';
import {join} from 'node:path';
import {parseArgs} from 'node:util';
import {ensureNpmPackages, root} from './set_up.mjs';

ensureNpmPackages();
const {context} = await import('esbuild');
const {temporaryBundle} = await import('./bundle.mjs');
const {softwareGpuEnvironment} = await import('./browser.mjs');
const {specFiles, specPlugins} = createRequire(import.meta.url)('../test/support/bundle_specs.js');

const {values: flags, positionals: names} = parseArgs({
  allowPositionals: true,
  options: {backend: {type: 'string', default: 'cpu'}, watch: {type: 'boolean', default: false}},
});
if (!['cpu', 'webgpu'].includes(flags.backend)) {
  throw new Error(`--backend must be cpu or webgpu in Node.js, but is '${flags.backend}'. npm test runs the others.`);
}

/** Specs of test/browser need one. */
const isChosen = (file) =>
  !file.startsWith('browser') && (names.length === 0 || names.some((name) => file.includes(name)));
const chosenFiles = () => specFiles().filter(isChosen);
if (chosenFiles().length === 0) {
  throw new Error(`No spec file for Node.js has ${names.join(' or ')} in its path below test/.`);
}

function run(command, args, env = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {cwd: root, env: {...process.env, ...env}, stdio: ['ignore', 'pipe', 'pipe']});
    let output = '';
    child.stdout.on('data', (data) => (output += data));
    child.stderr.on('data', (data) => (output += data));
    child.on('error', (error) => resolve({ok: false, output: String(error)}));
    child.on('close', (status) => resolve({ok: status === 0, output}));
  });
}

const counts = {passed: 0, failed: 0};
async function check(name, command, ...args) {
  const {ok, output} = await run(command, args);
  counts[ok ? 'passed' : 'failed']++;
  console.log(ok ? `ok ${name}` : `FAILED ${name}\n${output}`);
}

async function runSpecs(bundle) {
  const {output} = await run(process.execPath, [bundle, flags.backend], softwareGpuEnvironment);
  console.log(output.trimEnd());
  const [, passed, failed] = /(\d+) passed, (\d+) failed\s*$/.exec(output) ?? [0, 0, 1];
  counts.passed += Number(passed);
  counts.failed += Number(failed);
}

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
    sourcemap: 'inline',
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

const bin = (name) => join(root, 'node_modules', '.bin', name);
const checks = async () => {
  await check('types', bin('tsc'), '-p', '.');
  await check('lint', bin('eslint'), '.', '--max-warnings', '0');
  await check('import rules', bin('depcruise'), 'src', '--config', '.dependency-cruiser.cjs');
};

if (flags.watch) {
  await bundle('specs', chosenFiles, runSpecs);
} else {
  const specs = bundle('specs', chosenFiles, runSpecs);
  await Promise.all([specs, ...(names.length === 0 && availableParallelism() > 1 ? [checks()] : [])]);
  if (names.length === 0 && availableParallelism() === 1) {
    await checks();
  }
  console.log(`\n${counts.passed} passed, ${counts.failed} failed`);
  process.exitCode = counts.failed === 0 ? 0 : 1;
}
