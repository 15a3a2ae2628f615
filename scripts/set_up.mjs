/** Brings a bare machine to where the repository's commands run: npm packages, and browsers where they are missing. */
import {execFileSync, spawnSync} from 'node:child_process';
import {existsSync, mkdirSync, readFileSync, readlinkSync, rmSync, symlinkSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');

const packagesOf = (lockFile) => Object.entries(JSON.parse(readFileSync(join(root, lockFile), 'utf8')).packages);

/**
 * Whether node_modules has every package of package-lock.json at its version, whoever installed them. npm writes its
 * list of them last, so that half an installation has none. An optional package may be for another kind of machine.
 */
function hasNpmPackages() {
  if (!existsSync(join(root, 'node_modules', '.package-lock.json'))) {
    return false;
  }
  const installed = new Map(packagesOf('node_modules/.package-lock.json'));
  return packagesOf('package-lock.json')
    .filter(([path]) => path !== '')
    .every(([path, {version, optional}]) =>
      installed.has(path) ? installed.get(path).version === version && existsSync(join(root, path)) : optional,
    );
}

/** A link to the id of the process that installs: made whole or not at all. */
const lock = join(root, 'build', 'npm_ci.lock');
const LOCK_POLL_MS = 200;

/** Whether this process now holds the lock. One whose holder is gone is nobody's. */
function takeLock() {
  mkdirSync(dirname(lock), {recursive: true});
  try {
    symlinkSync(String(process.pid), lock);
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') {
      throw error;
    }
  }
  if (!isHeld()) {
    rmSync(lock, {force: true});
  }
  return false;
}

function isHeld() {
  try {
    // Signal 0 only asks.
    return process.kill(Number(readlinkSync(lock)), 0);
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Installs the npm packages of package-lock.json, unless these are there. Of several processes one installs. */
export function ensureNpmPackages() {
  while (!hasNpmPackages()) {
    if (takeLock()) {
      try {
        installNpmPackages();
      } finally {
        rmSync(lock, {force: true});
      }
      return;
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_POLL_MS);
  }
}

function installNpmPackages() {
  // Another process may have been through with it just before.
  if (hasNpmPackages()) {
    return;
  }
  console.log('Installing npm packages …');
  // Also where NODE_ENV is production.
  const args = ['ci', '--include=dev', '--include=optional'];
  execFileSync('npm', args, {cwd: root, stdio: ['ignore', 'ignore', 'inherit']});
}

/** Debian's packages of a program, and of what it loads. */
const debianPackages = {
  chromium: ['chromium', 'libgl1', 'libegl1', 'libgles2', 'libvulkan1'],
  firefox: ['firefox-esr', 'libgl1-mesa-dri', 'libgl1', 'libegl1', 'libgles2', 'mesa-vulkan-drivers'],
  webkit: ['webkit2gtk-driver', 'libgl1-mesa-dri'],
  xvfb: ['xvfb', 'xauth'],
};

const find = (...names) =>
  names.map((name) => spawnSync('sh', ['-c', `command -v ${name}`], {encoding: 'utf8'}).stdout.trim()).find(Boolean);

/** MiniBrowser is beside WebKitGTK's library, in a folder of its version. */
const findMiniBrowser = () =>
  spawnSync('sh', ['-c', 'ls /usr/lib/*/webkit2gtk-4.*/MiniBrowser'], {encoding: 'utf8'})
    .stdout.trim()
    .split('\n')
    .at(-1);

const findPrograms = () => ({
  chromium: process.env.CHROME_BIN ?? find('chromium', 'chromium-browser', 'google-chrome'),
  firefox: process.env.FIREFOX_BIN ?? find('firefox-esr', 'firefox'),
  webkit: process.env.WEBKIT_BIN ?? findMiniBrowser(),
  xvfb: find('xvfb-run'),
});

const needDisplay = ['firefox', 'webkit'];

/**
 * Paths of the browsers named, and of xvfb-run where one of them needs a display; on Debian, as root, what is missing
 * is installed. CHROME_BIN, FIREFOX_BIN and WEBKIT_BIN name others.
 */
export function ensureBrowsers(names) {
  const wanted = names.some((name) => needDisplay.includes(name)) && !process.env.DISPLAY ? [...names, 'xvfb'] : names;
  let programs = findPrograms();
  const missing = () => wanted.filter((name) => !programs[name]);
  const packages = [...new Set(missing().flatMap((name) => debianPackages[name]))];
  if (missing().length > 0 && find('apt-get') && process.getuid?.() === 0) {
    console.log(`Installing ${missing().join(', ')} from Debian's packages …`);
    const env = {...process.env, DEBIAN_FRONTEND: 'noninteractive'};
    execFileSync('apt-get', ['update', '-qq'], {stdio: ['ignore', 'ignore', 'inherit'], env});
    execFileSync('apt-get', ['install', '-y', '-qq', ...packages], {stdio: ['ignore', 'ignore', 'inherit'], env});
    programs = findPrograms();
  }
  if (missing().length > 0) {
    console.error(
      `This needs ${missing().join(', ')}. On Debian or Ubuntu: sudo apt-get install ${packages.join(' ')}. ` +
        'Elsewhere, install the browsers and name them in CHROME_BIN, FIREFOX_BIN and WEBKIT_BIN.',
    );
    process.exit(1);
  }
  return programs;
}
