/**
 * Trains the page of examples/digits in Chromium on a few digits, on cpu, and looks at its layout at the widths of
 * phones and desks. Ends with `N passed, N failed`.
 */
import {chromium} from 'playwright-core';
import {serveExample} from './serve_example.mjs';
import {expect, fails, printPageCounts} from './page_counts.mjs';
import {ensureBrowsers} from './set_up.mjs';

const WIDTHS = [320, 390, 1280];
const HEIGHT = 800;

const {url, done, stop} = await serveExample();
const args = ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking'];
const browser = await chromium.launch({executablePath: ensureBrowsers(['chromium']).chromium, args});
try {
  const context = await browser.newContext({viewport: {width: WIDTHS[0], height: HEIGHT}, isMobile: true});
  const page = await context.newPage();
  page.on('pageerror', ({message}) => fails(message));
  page.on('crash', () => fails('The page crashed.'));
  await page.goto(`${url}?backend=cpu&digits=50&epochs=1`);
  const {error} = await done;
  expect(error == null, error);
  const hasImages = await page.locator('#gallery canvas').count();
  expect(hasImages > 0, 'No held-out digit is shown.');
  for (const width of WIDTHS) {
    await page.setViewportSize({width, height: HEIGHT});
    const pageWidth = await page.evaluate(() => document.documentElement.scrollWidth);
    expect(pageWidth === width, `At ${width} px the page lays out at ${pageWidth}.`);
  }
} finally {
  await browser.close();
  stop();
}
printPageCounts();
