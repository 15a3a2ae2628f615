/**
 * Builds the site, and looks at its guides and at some pages of the reference in Chromium: nothing is missing, nothing
 * comes from elsewhere, and no page is wider than a phone or a desk. Ends with `N passed, N failed`.
 */
import {readdirSync} from 'node:fs';
import {join} from 'node:path';
import {chromium} from 'playwright-core';
import {buildSite, siteFolder} from './build_site.mjs';
import {serveFolder} from './serve_folder.mjs';
import {expect, fails, printPageCounts} from './page_counts.mjs';
import {ensureBrowsers} from './set_up.mjs';

const WIDTHS = [390, 1280];
const HEIGHT = 800;
const referencePages = [
  'modules.html',
  'functions/tfjs-moe.moePermute.html',
  'types/tfjs-moe_layers.MixtureOfExpertsArgs.html',
];

buildSite();
const {url, stop} = await serveFolder(siteFolder);
const args = ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking'];
const browser = await chromium.launch({executablePath: ensureBrowsers(['chromium']).chromium, args});
try {
  const context = await browser.newContext({viewport: {width: WIDTHS[0], height: HEIGHT}, isMobile: true});
  const page = await context.newPage();
  page.on('pageerror', ({message}) => fails(`${page.url()}: ${message}`));
  page.on('response', (response) => expect(response.ok(), `${response.url()} has status ${response.status()}.`));
  page.on('request', (request) => expect(request.url().startsWith(url), `A page asks for ${request.url()}.`));
  const guides = readdirSync(join(siteFolder, 'documents')).map((file) => `documents/${file}`);
  const pages = ['index.html', ...guides, ...referencePages];
  for (const name of pages) {
    await page.goto(`${url}${name}`);
    for (const width of WIDTHS) {
      await page.setViewportSize({width, height: HEIGHT});
      const pageWidth = await page.evaluate(() => document.documentElement.scrollWidth);
      expect(pageWidth === width, `At ${width} px ${name} lays out at ${pageWidth}.`);
    }
  }
  await page.goto(`${url}index.html`);
  await page.click('#tsd-search-trigger');
  await page.fill('#tsd-search-input', 'moePermute');
  const found = await page.locator('#tsd-search-results a').first().textContent();
  expect(/moePermute/i.test(found), `A search for moePermute finds ${found}.`);
} finally {
  await browser.close();
  stop();
}
printPageCounts();
