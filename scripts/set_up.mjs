/** Brings a bare machine to where the repository's commands run: npm packages, and browsers where they are missing. */
import {execFileSync, spawnSync} from 'node:child_process';
import {existsSync, readFileSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Installs the npm packages of package-lock.json, unless exactly these are there. */
export function ensureNpmPackages() {
  const lockFile = readFileSync(join(root, 'package-lock.json'), 'utf8');
  const stamp = join(root, 'node_modules', '.installed-lock.json');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === lockFile) {
    return;
  }
  console.log('Installing npm packages …');
  execFileSync('npm', ['ci'], {cwd: root, stdio: ['ignore', 'ignore', 'inherit']});
  writeFileSync(stamp, lockFile);
}

const debianPackages = [
  'chromium', 'firefox-esr', 'xvfb', 'xauth',
  'libgl1-mesa-dri', 'libgl1', 'libegl1', 'libgles2', 'libvulkan1',
];

const find = (...names) =>
  names.map((name) => spawnSync('sh', ['-c', `command -v ${name}`], {encoding: 'utf8'}).stdout.trim()).find(Boolean);

const findBrowsers = () => ({
  chromium: process.env.CHROME_BIN ?? find('chromium', 'chromium-browser', 'google-chrome'),
  firefox: process.env.FIREFOX_BIN ?? find('firefox-esr', 'firefox'),
  xvfb: find('xvfb-run'),
});

/**
 * Paths of Chromium, Firefox and xvfb-run; on Debian, as root, what is missing is installed.
 * CHROME_BIN and FIREFOX_BIN name others.
 */
export function ensureBrowsers() {
  let browsers = findBrowsers();
  const missing = () => Object.keys(browsers).filter((name) => !browsers[name]);
  if (missing().length > 0 && find('apt-get') && process.getuid?.() === 0) {
    console.log(`Installing ${missing().join(', ')} from Debian's packages …`);
    const env = {...process.env, DEBIAN_FRONTEND: 'noninteractive'};
    execFileSync('apt-get', ['update', '-qq'], {stdio: ['ignore', 'ignore', 'inherit'], env});
    execFileSync('apt-get', ['install', '-y', '-qq', ...debianPackages], {stdio: ['ignore', 'ignore', 'inherit'], env});
    browsers = findBrowsers();
  }
  if (missing().length > 0) {
    throw new Error(
      `The tests need ${missing().join(', ')}. On Debian or Ubuntu: ` +
        `sudo apt-get install ${debianPackages.join(' ')}. Elsewhere, install Chromium and Firefox and name ` +
        'them in CHROME_BIN and FIREFOX_BIN.',
    );
  }
  return browsers;
}

