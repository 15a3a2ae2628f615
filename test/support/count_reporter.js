/** Karma reporter: each failure in full, a line a browser, and a last line `N passed, N failed`. */
function countReporter(formatError) {
  const write = (text) => process.stdout.write(text);
  let failed = 0;
  let passed = 0;

  this.adapters = [];
  this.onRunStart = () => {
    failed = 0;
    passed = 0;
  };
  this.onBrowserStart = (browser) => write(`${browser.name}: started\n`);
  this.onBrowserError = (browser, error) => {
    failed++;
    write(`${browser.name}: ${formatError(error)}\n`);
  };
  this.onBrowserLog = (browser, log, type) => write(`${browser.name} ${type}: ${log}\n`);
  this.onSpecComplete = (browser, result) => {
    if (result.time > 3_000) {
      write(`${browser.name} took ${(result.time / 1000).toFixed(0)} s: ${[...result.suite, result.description].join(' > ')}\n`);
    }
    // A spec that is switched off is not a spec that passed.
    if (result.success && !result.skipped) {
      passed++;
      return;
    }
    failed++;
    const reason = result.skipped ? 'switched off' : result.log.map((log) => formatError(log)).join('\n');
    write(`${browser.name} FAILED ${[...result.suite, result.description].join(' > ')}\n${reason}\n`);
  };
  this.onBrowserComplete = (browser) => {
    const {success, failed: failures, totalTime} = browser.lastResult;
    write(`${browser.name}: ${success} passed, ${failures} failed in ${(totalTime / 1000).toFixed(1)} s\n`);
  };
  this.onRunComplete = () => {
    write(`${passed} passed, ${failed} failed\n`);
  };
}
countReporter.$inject = ['formatError'];

module.exports = {countReporter};
