/** Karma reporter: each failure in full, a line a browser, and a last line `N passed, N failed`. */
function countReporter(formatError) {
  const write = (text) => process.stdout.write(text);
  const counts = new Map();
  const countsOf = ({id}) => {
    if (!counts.has(id)) {
      counts.set(id, {passed: 0, failed: 0});
    }
    return counts.get(id);
  };
  const total = (what) => [...counts.values()].reduce((sum, ofBrowser) => sum + ofBrowser[what], 0);

  this.adapters = [];
  this.onRunStart = () => counts.clear();
  this.onBrowserStart = (browser) => {
    // One that was lost begins again: what it passed before is not counted twice, what it failed is not forgotten.
    countsOf(browser).passed = 0;
    write(`${browser.name}: started\n`);
  };
  this.onBrowserError = (browser, error) => {
    countsOf(browser).failed++;
    write(`${browser.name}: ${formatError(error)}\n`);
  };
  this.onBrowserLog = (browser, log, type) => write(`${browser.name} ${type}: ${log}\n`);
  this.onSpecComplete = (browser, result) => {
    if (result.time > 3_000) {
      write(`${browser.name} took ${(result.time / 1000).toFixed(0)} s: ${[...result.suite, result.description].join(' > ')}\n`);
    }
    // A spec that is switched off is not a spec that passed.
    if (result.success && !result.skipped) {
      countsOf(browser).passed++;
      return;
    }
    countsOf(browser).failed++;
    const reason = result.skipped ? 'switched off' : result.log.map((log) => formatError(log)).join('\n');
    write(`${browser.name} FAILED ${[...result.suite, result.description].join(' > ')}\n${reason}\n`);
  };
  this.onBrowserComplete = (browser) => {
    const {success, failed: failures, totalTime} = browser.lastResult;
    write(`${browser.name}: ${success} passed, ${failures} failed in ${(totalTime / 1000).toFixed(1)} s\n`);
  };
  this.onRunComplete = () => {
    write(`${total('passed')} passed, ${total('failed')} failed\n`);
  };
}
countReporter.$inject = ['formatError'];

module.exports = {countReporter};
