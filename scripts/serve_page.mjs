/** Serves a page of this repository, and prints the lines that it posts. */
import {createReadStream} from 'node:fs';
import {createServer} from 'node:http';
import {extname} from 'node:path';
import {text} from 'node:stream/consumers';
import {build} from 'esbuild';
import {openBrowser} from './browser.mjs';
import {ensureBrowsers} from './set_up.mjs';

const types = {'.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.json': 'application/json'};

/**
 * `/page.js` is the bundle of `entryPoint`; `fileOf` gives the files of other addresses. `done` is what a page posts
 * when it is through; `stop` ends the server.
 */
export async function servePage(entryPoint, fileOf) {
  const {outputFiles} = await build({
    entryPoints: [entryPoint],
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
        finish(JSON.parse(body));
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

/** Opens an address that is served, in the browser of that name, and gives what the page posts when it is through. */
export async function runPage({done, stop}, address, browserName) {
  const {closed, close} = openBrowser(ensureBrowsers([browserName]), browserName, address);
  try {
    return await Promise.race([done, closed]);
  } finally {
    await close();
    stop();
  }
}
