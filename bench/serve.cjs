/**
 * node serve.cjs BROWSER "FLAGS" OUTPUT.json ["backend=webgpu&layer=mixtral,granite&T=256,4096&op=moePermute&runs=20"]:
 * opens the page beside this file in Chromium or Firefox and writes the rows that it posts. `baselines=1` times the
 * compositions of core ops too, `gpuTime=0` leaves out the timer queries of WebGL, `host=1` times JavaScript alone, and
 * `peer=1` times onnxruntime-web beside fusedMoe. Needs nothing but Node.js.
 */
const {spawn} = require('node:child_process');
const {mkdtempSync, readFileSync, writeFileSync} = require('node:fs');
const {createServer} = require('node:http');
const {tmpdir} = require('node:os');
const {join} = require('node:path');
const {firefoxPreferences} = require('../scripts/browser_flags.cjs');

const [browser, flags, output, query = ''] = process.argv.slice(2);

// A page that is isolated has a clock of microseconds instead of tenths of a millisecond.
const isolated = {'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp'};

const server = createServer((request, response) => {
  if (request.method === 'POST') {
    let body = '';
    request.on('data', (data) => (body += data));
    request.on('end', () => {
      response.end();
      if (request.url.startsWith('/line')) {
        console.log(body);
      } else {
        finish(body);
      }
    });
  } else if (request.url === '/page.js' || request.url === '/ort.wasm') {
    response.writeHead(200, {'content-type': request.url === '/page.js' ? 'text/javascript' : 'application/wasm'});
    response.end(readFileSync(join(__dirname, request.url)));
  } else {
    response.writeHead(200, {'content-type': 'text/html', ...isolated});
    response.end(
      '<!doctype html><title>tfjs-moe benchmarks</title><body><script type="module" src="page.js"></script>',
    );
  }
});

let child;
function finish(body) {
  const result = JSON.parse(body);
  writeFileSync(output, body);
  child.kill();
  server.close();
  if (result.error) {
    console.error(result.error);
    process.exit(1);
  }
  process.exit(0);
}

server.listen(0, '127.0.0.1', () => {
  const profile = mkdtempSync(join(tmpdir(), 'bench-'));
  const url = `http://127.0.0.1:${server.address().port}/?${query}`;
  const isFirefox = /firefox/i.test(browser);
  if (isFirefox) {
    const preferences = Object.entries(firefoxPreferences);
    const lines = preferences.map(([name, value]) => `user_pref('${name}', ${value});\n`);
    writeFileSync(join(profile, 'user.js'), lines.join(''));
  }
  const profileFlags = isFirefox ? ['--no-remote', '--profile', profile] : [`--user-data-dir=${profile}`];
  const args = [...flags.split(' ').filter(Boolean), ...profileFlags, url];
  child = spawn(browser, args, {stdio: 'ignore'});
});
