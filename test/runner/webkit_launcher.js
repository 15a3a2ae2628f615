/**
 * Karma launcher of WebKitGTK's MiniBrowser, the browser of Debian's libwebkit2gtk. The launchers of npm start Safari, or
 * a WebKit that Playwright has downloaded. WEBKIT_BIN names the program; it needs a display.
 */
function webkitLauncher(baseBrowserDecorator) {
  baseBrowserDecorator(this);
  // Private: nothing is kept from one run to the next.
  this._getOptions = (url) => ['--private', url];
}
webkitLauncher.prototype = {name: 'WebKit', DEFAULT_CMD: {}, ENV_CMD: 'WEBKIT_BIN'};
webkitLauncher.$inject = ['baseBrowserDecorator'];

module.exports = {webkitLauncher};
