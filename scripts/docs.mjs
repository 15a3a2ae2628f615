/** `npm run docs`: builds the guides, the reference and the pages beside them, and serves them. */
import {parseCommandLine} from './command_line.mjs';
import {ensureNpmPackages} from './set_up.mjs';

const usage = `npm run docs [-- --port n]   builds guides, reference, live page and device check, and serves them on this machine
npm run docs:build           only builds them: build/site, for any static host`;

const {flags} = parseCommandLine(usage, {port: {type: 'string', default: '0'}, build: {type: 'boolean'}});
ensureNpmPackages();
const {buildDemo} = await import('./build_demo.mjs');
const {buildDeviceCheck} = await import('./device_check_page.mjs');
const {buildSite, siteFolder} = await import('./build_site.mjs');
await buildDemo();
await buildDeviceCheck();
buildSite();
if (flags.build) {
  console.log(`The site is in ${siteFolder}.`);
} else {
  const {serveFolder} = await import('./serve_folder.mjs');
  const {url} = await serveFolder(siteFolder, Number(flags.port));
  console.log(`The site is at\n\n  ${url}\n\nCtrl+C ends it.`);
}
