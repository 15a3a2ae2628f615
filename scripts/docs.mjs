/** `npm run docs`: builds the guides and the reference, and serves them. */
import {parseCommandLine} from './command_line.mjs';
import {ensureNpmPackages} from './set_up.mjs';

const usage = `npm run docs [-- --port n]   builds the guides and the reference and serves them on this machine
npm run docs:build           only builds them: build/site, for any static host`;

const {flags} = parseCommandLine(usage, {port: {type: 'string', default: '0'}, build: {type: 'boolean'}});
ensureNpmPackages();
const {buildSite, siteFolder} = await import('./build_site.mjs');
buildSite();
if (flags.build) {
  console.log(`The site is in ${siteFolder}.`);
} else {
  const {serveFolder} = await import('./serve_folder.mjs');
  const {url} = await serveFolder(siteFolder, Number(flags.port));
  console.log(`The site is at\n\n  ${url}\n\nCtrl+C ends it.`);
}
