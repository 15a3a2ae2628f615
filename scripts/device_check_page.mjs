/** Builds the page of device_check as static files, serves them, and runs the page in a browser. */
import {cpSync, mkdirSync, readdirSync, readFileSync, rmSync} from 'node:fs';
import {createServer} from 'node:http';
import {basename, extname, join} from 'node:path';
import {json} from 'node:stream/consumers';
import {build} from 'esbuild';
import {root} from './set_up.mjs';

const folder = join(root, 'device_check');
const wasm = join(root, 'node_modules', '@tensorflow', 'tfjs-backend-wasm', 'dist');
export const builtPage = join(root, 'build', 'device_check');

const groups = JSON.parse(readFileSync(join(folder, 'checks.json'), 'utf8'));

/** The spec files of checks.json, to be loaded a group at a time. */
const specFiles = {
  name: 'device-check-specs',
  setup(build) {
    build.onResolve({filter: /^device-check-specs$/}, ({path}) => ({path, namespace: path}));
    build.onLoad({filter: /.*/, namespace: 'device-check-specs'}, () => {
      const loaders = groups.map(({title, files}) => {
        const calls = files.map((file) => `require('../test/${file}');`).join(' ');
        return `{title: ${JSON.stringify(title)}, load: () => { ${calls} }}`;
      });
      return {contents: `export const specFileGroups = [${loaders.join(',')}];`, resolveDir: folder};
    });
  },
};

/** Writes check.html and its files, which any host can serve. */
export async function buildDeviceCheck() {
  rmSync(builtPage, {recursive: true, force: true});
  mkdirSync(builtPage, {recursive: true});
  await build({
    entryPoints: [join(folder, 'page.ts')],
    outfile: join(builtPage, 'check.js'),
    bundle: true,
    minify: true,
    platform: 'browser',
    target: 'es2022',
    alias: {'@tensorflow/tfjs-core/dist/jasmine_util': join(folder, 'described_specs.ts')},
    // Jasmine looks for the global scope by its name in Node.js.
    define: {global: 'globalThis'},
    // The sideEffects list of package.json is for those who use the package.
    ignoreAnnotations: true,
    plugins: [specFiles],
    logLevel: 'error',
  });
  for (const file of [join(folder, 'check.html'), join(folder, 'check.css'), join(root, 'site', 'shared.css')]) {
    cpSync(file, join(builtPage, basename(file)));
  }
  for (const file of readdirSync(wasm).filter((name) => name.endsWith('.wasm'))) {
    cpSync(join(wasm, file), join(builtPage, file));
  }
}

const types = {'.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.wasm': 'application/wasm'};

/** In place of the visitor: starts the check, and posts its report. */
const driver = `<script>
  document.querySelector('#start').click();
  deviceReport
    .catch((error) => ({passed: false, verdict: [String(error)]}))
    .then((report) => fetch('done', {method: 'POST', body: JSON.stringify(report)}));
</script></body>`;

/**
 * Serves the built page. `/run.html` is the page that starts by itself, and `done` what it posts; `stop` ends the
 * server.
 */
export async function serveDeviceCheck() {
  let finish;
  const done = new Promise((resolve) => (finish = resolve));
  const files = Object.fromEntries(readdirSync(builtPage).map((name) => [name, readFileSync(join(builtPage, name))]));
  files['run.html'] = files['check.html'].toString().replace('</body>', driver);
  const server = createServer(async (request, response) => {
    if (request.method === 'POST') {
      finish(await json(request));
      response.end();
      return;
    }
    const name = new URL(request.url, 'http://localhost').pathname.slice(1) || 'check.html';
    const type = types[extname(name)];
    response.writeHead(files[name] == null ? 404 : 200, {'content-type': type}).end(files[name]);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return {url: `http://127.0.0.1:${server.address().port}/`, done, stop};
}
