/**
 * The whole test command: types, lint, import directions, package gates, and the specs in real browsers.
 * Arguments go to Karma: `npm test -- --browsers Chromium --backends cpu`. Ends with `N passed, N failed`.
 */
import {spawn} from 'node:child_process';
import {existsSync} from 'node:fs';
import {join} from 'node:path';
import {ensureBrowsers, ensureNpmPackages, root} from './set_up.mjs';

ensureNpmPackages();
const browsers = ensureBrowsers();
const counts = {passed: 0, failed: 0};
const bin = (name) => join(root, 'node_modules', '.bin', name);

/** Runs a command and gives its exit status and its last line `N passed, N failed`, if it ends with one. */
function run(command, args, env = {}) {
  return new Promise((resolve) => {
    const options = {cwd: root, env: {...process.env, ...env}, stdio: ['ignore', 'pipe', 'inherit']};
    const child = spawn(command, args, options);
    let output = '';
    child.stdout.on('data', (data) => {
      output += data;
      process.stdout.write(data);
    });
    child.on('error', (error) => resolve({ok: false, error}));
    child.on('close', (status) => {
      const [, passed, failed] = /(\d+) passed, (\d+) failed\s*$/.exec(output) ?? [];
      resolve({ok: status === 0, passed: Number(passed), failed: Number(failed)});
    });
  });
}

/** One check that counts as one test. */
async function check(name, command, ...args) {
  console.log(`\n# ${name}`);
  const {ok} = await run(command, args, env);
  counts[ok ? 'passed' : 'failed']++;
  console.log(`${ok ? 'ok' : 'FAILED'} ${name}`);
}

/** A runner that counts its own tests; one that fails without saying so, or runs none, is a failure too. */
async function runner(name, command, args, env) {
  console.log(`\n# ${name}`);
  const {ok, passed, failed} = await run(command, args, env);
  counts.passed += passed || 0;
  counts.failed += failed || 0;
  if (!(passed > 0) || (!ok && failed === 0)) {
    counts.failed++;
    console.log(`FAILED ${name}: it ended without a result`);
  }
}

const vulkanDriver = '/usr/lib/chromium/vk_swiftshader_icd.json';
const env = existsSync(vulkanDriver) ? {VK_ICD_FILENAMES: vulkanDriver} : {};

await check('types', bin('tsc'), '-p', '.');
await check('lint', bin('eslint'), '.', '--max-warnings', '0');
await check('import directions', bin('depcruise'), 'src', '--config', '.dependency-cruiser.cjs');
await check('support table', 'node', 'scripts/support_table.mjs', '--check');
const small = ['--backend', 'webgpu', '--T', '5,100', '--H', '16', '--I', '8'];
await check('webgpu in Node.js', 'node', 'scripts/bench.mjs', '--check', ...small);
await runner('package', 'node', ['scripts/check_package.mjs']);

// Firefox loses its connection to Karma after 300 s, and then begins again; no part takes that long.
const NUM_PARTS = 10;
for (let part = 1; part <= NUM_PARTS; part++) {
  const karma = [bin('karma'), 'start', 'karma.conf.js', '--part', `${part}/${NUM_PARTS}`, ...process.argv.slice(2)];
  const [command, ...args] = process.env.DISPLAY
    ? karma
    : [browsers.xvfb, '-a', '-s', '-screen 0 1280x800x24', ...karma];
  await runner(`specs in browsers, part ${part} of ${NUM_PARTS}`, command, args, {
    CHROME_BIN: browsers.chromium,
    FIREFOX_BIN: browsers.firefox,
    ...env,
  });
}

console.log(`\n${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed === 0 ? 0 : 1;
