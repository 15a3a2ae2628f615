/** Opens pages in Chromium, Firefox or WebKit, on their software GPUs where there is no other. */
import {spawn} from 'node:child_process';
import {existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import browserFlags from './browser_flags.cjs';

export const chromiumFlags = ['--headless', ...browserFlags.chromiumFlags];
const vulkanDrivers = '/usr/share/vulkan/icd.d';
const swiftShader = '/usr/lib/chromium/vk_swiftshader_icd.json';

/** Mesa's software GPU, whose Vulkan has too few features for Dawn. */
function lavapipe() {
  const file = existsSync(vulkanDrivers) && readdirSync(vulkanDrivers).find((name) => name.startsWith('lvp_icd'));
  return file ? join(vulkanDrivers, file) : undefined;
}

const environmentOf = (driver) => (driver != null && existsSync(driver) ? {VK_ICD_FILENAMES: driver} : {});

/** Variables for Chromium or Node.js, so that WebGPU has an adapter where there is no GPU. */
export const softwareGpuEnvironment = environmentOf(swiftShader);

/** The same for Firefox, which compiles our shaders five times as fast for lavapipe as for SwiftShader. */
export const firefoxEnvironment = environmentOf(lavapipe() ?? swiftShader);

/**
 * A program and its arguments with a display of its own, where there is none: without one Firefox has no WebGL. It is
 * the first free display from `firstDisplay` on; two programs that start at the same time need theirs far apart.
 */
export const withDisplay = (browsers, command, firstDisplay = 99) =>
  process.env.DISPLAY
    ? command
    : [browsers.xvfb, '-a', '-n', String(firstDisplay), '-s', '-screen 0 1280x800x24', ...command];

/** Opens an address in the browser of that name, with a new profile. `closed` rejects where it ends by itself. */
export function openBrowser(browsers, name, url) {
  const profile = mkdtempSync(join(tmpdir(), 'tfjs-moe-browser-'));
  const preferences = Object.entries(browserFlags.firefoxPreferences);
  const lines = preferences.map(([name, value]) => `user_pref('${name}', ${value});\n`);
  writeFileSync(join(profile, 'user.js'), lines.join(''));
  const commands = {
    chromium: () => [browsers.chromium, ...chromiumFlags, `--user-data-dir=${profile}`, url],
    firefox: () => withDisplay(browsers, [browsers.firefox, '--no-remote', '--profile', profile, url]),
    webkit: () => withDisplay(browsers, [browsers.webkit, '--private', url]),
  };
  const [program, ...args] = commands[name]();
  // A group of its own: xvfb-run and browsers start further processes.
  const env = {...process.env, ...(name === 'firefox' ? firefoxEnvironment : softwareGpuEnvironment)};
  const child = spawn(program, args, {stdio: 'ignore', detached: true, env});
  const exited = new Promise((resolve) => {
    child.on('error', resolve);
    child.on('exit', () => resolve(new Error(`${name} ended before the page was done.`)));
  });
  const closed = exited.then((error) => Promise.reject(error));
  const close = async () => {
    closed.catch(() => {});
    if (child.pid != null && child.exitCode == null) {
      process.kill(-child.pid);
      await exited;
    }
    rmSync(profile, {recursive: true, force: true, maxRetries: 10, retryDelay: 200});
  };
  return {closed, close};
}
