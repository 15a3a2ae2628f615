/** Runs the checks of `npm run check` and `npm test`, and counts what passes and what fails. */
import {spawn} from 'node:child_process';
import {join} from 'node:path';
import {softwareGpuEnvironment} from './browser.mjs';
import {root} from './set_up.mjs';

export const bin = (name) => join(root, 'node_modules', '.bin', name);

/** Their links must lead to files and headings that are there. */
const pages = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'docs'];

const counts = {passed: 0, failed: 0};

/** Runs a command to its end; what it writes is shown at once if `isShown`. */
function run(command, args, {env = {}, isShown = false} = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env: {...process.env, ...softwareGpuEnvironment, ...env},
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const [from, to] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      from.on('data', (data) => {
        output += data;
        if (isShown) {
          to.write(data);
        }
      });
    }
    child.on('error', (error) => resolve({ok: false, output: String(error)}));
    child.on('close', (status) => resolve({ok: status === 0, output}));
  });
}

/** One check that counts as one test, and is silent where it passes. */
export async function check(name, command, ...args) {
  const {ok, output} = await run(command, args);
  counts[ok ? 'passed' : 'failed']++;
  console.log(ok ? `ok ${name}` : `FAILED ${name}\n${output}`);
}

/**
 * A runner that counts its own tests; one that fails without saying so, or runs none, is a failure too. What it writes
 * is shown at once if `isShown`, else when it has ended: others may run beside it.
 */
export async function runner(name, command, args, {env, isShown = false} = {}) {
  if (isShown) {
    console.log(`\n# ${name}`);
  }
  const start = Date.now();
  const {ok, output} = await run(command, args, {env, isShown});
  if (!isShown) {
    console.log(`\n# ${name}, ${((Date.now() - start) / 1000).toFixed(0)} s\n${output}`);
  }
  const [, passed = 0, failed = 0] = (/(\d+) passed, (\d+) failed\s*$/.exec(output) ?? []).map(Number);
  counts.passed += passed;
  counts.failed += failed;
  if (passed === 0 || (!ok && failed === 0)) {
    counts.failed++;
    console.log(`FAILED ${name}: it ended without a result`);
  }
}

/** Runs the functions, `atOnce` at a time, each as soon as one before it has ended. */
export async function inTurn(atOnce, functions) {
  const waiting = [...functions];
  const next = async () => {
    for (let call = waiting.shift(); call != null; call = waiting.shift()) {
      await call();
    }
  };
  await Promise.all(Array.from({length: atOnce}, next));
}

/** What needs neither a browser nor a GPU. */
export async function checkSources() {
  await Promise.all([
    check('types', bin('tsc'), '-p', '.'),
    check('lint', bin('eslint'), '.', '--max-warnings', '0'),
    check(
      'format',
      bin('prettier'),
      '--check',
      'src',
      'scripts',
      'bench',
      'examples',
      'demo',
      'device_check',
      'site',
      '*.{js,cjs,mjs}',
    ),
    check('docs', process.execPath, 'scripts/check_docs.mjs'),
    check('links', bin('remark'), '--quiet', '--frail', '--use', 'validate-links=repository:false', ...pages),
    check('import rules', bin('depcruise'), 'src', '--config', '.dependency-cruiser.cjs'),
    check('support table', process.execPath, 'scripts/support_table.mjs', '--check'),
    check('table of checkpoints', process.execPath, 'scripts/checkpoints_table.mjs', '--check'),
  ]);
}

/** Ends with the line `N passed, N failed`, and exit status 1 if any failed. */
export function printCounts() {
  console.log(`\n${counts.passed} passed, ${counts.failed} failed`);
  process.exitCode = counts.failed === 0 ? 0 : 1;
}
