/**
 * Builds and packs the package, installs the tarball in a project of its own (test/package), and uses it there in
 * every way it says it can be used. One line for each gate; exit code 1 if one fails.
 */
import {execFile} from 'node:child_process';
import {cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join, relative} from 'node:path';
import {promisify} from 'node:util';
import * as esbuild from 'esbuild';
import {chromium} from 'playwright-core';
import {publint} from 'publint';
import {formatMessage} from 'publint/utils';
import {build as buildWithVite, createLogger} from 'vite';
import webpack from 'webpack';
import {chromiumFlags, softwareGpuEnvironment} from './browser.mjs';
import {bundleForNode} from './bundle.mjs';
import {programsOf} from './doc_programs.mjs';
import {ensureBrowsers, root} from './set_up.mjs';
import {filesAddress, stagePackage, stagedPackage} from './stage_package.mjs';

const packageJson = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const entries = Object.keys(packageJson.exports).filter((name) => name !== './package.json');

const folder = mkdtempSync(join(tmpdir(), 'tfjs-moe-package-'));
const consumer = join(folder, 'consumer');
const installed = join(consumer, 'node_modules', packageJson.name);
const hub = join(folder, 'hub');
let tarball;
let browser;
let opened;

function assert(condition, message) {
  if (!condition) {
    throw new Error(message);
  }
}

/** tfjs itself greets on stderr, in Node, where its CPU backend first starts. */
const withoutGreeting = (text) => text.replace(/=+\nHi, looks like you are running[^]*?\n=+/g, '').trim();

/** Runs a program to its end; what it printed is in the result, and in the error if it fails. */
async function run(program, args, cwd = consumer) {
  try {
    const env = {...process.env, ...softwareGpuEnvironment, NODE_NO_WARNINGS: '1'};
    return await promisify(execFile)(program, args, {cwd, env});
  } catch (error) {
    throw new Error(withoutGreeting(`${error.stdout ?? ''}${error.stderr ?? ''}`) || error.message);
  }
}

const runBin = (name, args, cwd) => run(join(root, 'node_modules', '.bin', name), args, cwd);

// Set-up: what the gates look at.

const buildPackage = () => run(process.execPath, [join(root, 'scripts', 'build.mjs')], root);

async function packPackage() {
  stagePackage();
  const {stdout} = await run('npm', ['pack', stagedPackage, '--json', '--pack-destination', folder], root);
  tarball = join(folder, JSON.parse(stdout)[0].filename);
}

/** A package in the version of this repository. */
const versioned = (name) => {
  const {version} = JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8'));
  return `${name}@${version}`;
};

const flagsOfNpm = ['--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts'];
const install = (...packages) => run('npm', ['install', tarball, ...packages.map(versioned), ...flagsOfNpm]);

async function installPackage() {
  cpSync(join(root, 'test', 'package'), consumer, {recursive: true});
  await install('@tensorflow/tfjs');
}

// The package as files.

async function lintPackage() {
  const bytes = readFileSync(tarball);
  const pack = {tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)};
  // Not its suggestions: it would like a `type`, which no file of dist/ needs and which breaks rolldown's output.
  const {messages, pkg} = await publint({pack, strict: true, level: 'warning'});
  assert(messages.length === 0, messages.map((message) => formatMessage(message, pkg)).join('\n'));
}

const checkTypesOfEntries = () =>
  runBin('attw', [tarball, '--format=ascii', '--no-color', '--no-emoji', '--exclude-entrypoints=package.json']);

function checkFiles() {
  const files = readdirSync(join(installed, 'dist'), {recursive: true});
  const ofTfjs = files.filter((file) => file.includes('node_modules'));
  assert(ofTfjs.length === 0, `files of other packages: ${ofTfjs}`);
  for (const file of files.filter((name) => /\.[mc]js$/.test(name))) {
    const deep = readFileSync(join(installed, 'dist', file), 'utf8').match(/["']@tensorflow\/[\w-]+\/[^"']*["']/);
    assert(deep == null, `${file} imports ${deep}: only package roots load in Node`);
  }
  const {sources} = JSON.parse(readFileSync(join(installed, 'dist/tf-moe.min.js.map'), 'utf8'));
  const foreign = sources.filter((source) => !source.startsWith('../src/'));
  assert(foreign.length === 0, `the script build contains ${foreign}`);
  assert(existsSync(join(installed, 'LICENSE')), 'LICENSE is missing');
}

/** The file that an import of a path, not of a package, leads to: `exports` do not count. */
async function resolvedPath(importPath, mainFields) {
  let resolution;
  const resolver = {
    name: 'resolver',
    setup: ({onStart, resolve}) =>
      onStart(async () => {
        resolution = await resolve(importPath, {kind: 'import-statement', resolveDir: consumer});
      }),
  };
  await bundle({stdin: {contents: ''}, mainFields, plugins: [resolver]});
  assert(resolution.errors.length === 0, resolution.errors.map(({text}) => text).join('\n'));
  return resolution.path;
}

/** Parcel and others that do not read `exports` look for a folder of the entry's name. */
async function checkFolders() {
  for (const entry of entries) {
    const {require, import: imported} = packageJson.exports[entry];
    for (const [mainFields, wanted] of [
      [['main'], require],
      [['module', 'main'], imported],
    ]) {
      const path = await resolvedPath(`./${relative(consumer, join(installed, entry))}`, mainFields);
      const found = `./${relative(installed, path)}`;
      assert(found === wanted.default, `${entry} by its ${mainFields[0]} is ${found}, not ${wanted.default}`);
    }
  }
}

/** Links and pictures of a Markdown text in all their forms. */
const linksOf = (markdown) =>
  [
    ...markdown
      .replace(/^```[^]*?^```|`[^`]*`/gm, '')
      .matchAll(/\]\(\s*<?([^)\s>]+)|\b(?:href|src)="([^"]*)"|^ *\[[^\]]+\]: *<?([^\s>]+)/gm),
  ].map(([, inline, attribute, definition]) => inline ?? attribute ?? definition);

const anchorsOf = (markdown) =>
  [...markdown.matchAll(/^#+ +(.*)$/gm)].map(([, heading]) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );

/** npm shows README.md by itself: its links are absolute or to its own headings. Other pages may have relative ones. */
function checkLinks() {
  const pages = readdirSync(installed, {recursive: true}).filter((file) => file.endsWith('.md'));
  assert(pages.includes('README.md'), 'README.md is missing');
  for (const page of pages) {
    const text = readFileSync(join(installed, page), 'utf8');
    const links = linksOf(text);
    assert(page !== 'README.md' || links.length > 0, 'README.md has no links: this gate does not see them');
    for (const link of links) {
      const isOfPackage = link.startsWith(filesAddress);
      if (/^https?:/.test(link) && !isOfPackage) {
        continue;
      }
      assert(page !== 'README.md' || isOfPackage || link.startsWith('#'), `README.md has the relative link ${link}`);
      const [path, anchor] = link.slice(isOfPackage ? filesAddress.length : 0).split('#');
      const target = path === '' ? page : isOfPackage ? path : join(dirname(page), path);
      assert(existsSync(join(installed, target)), `${page} links to ${link}, which is not in the package`);
      const hasAnchor = anchor == null || anchorsOf(readFileSync(join(installed, target), 'utf8')).includes(anchor);
      assert(hasAnchor, `${page} links to ${link}, but ${target} has no such heading`);
    }
  }
}

const checkSizes = () => run(process.execPath, [join(root, 'scripts', 'sizes.mjs'), '--check'], root);

async function checkVersion() {
  const {stdout} = await run(process.execPath, ['-p', `require('${packageJson.name}').version_moe`]);
  const version = stdout.trim();
  assert(version === packageJson.version, `it is ${version}, but package.json has ${packageJson.version}`);
}

async function checkPeersOfEntries() {
  for (const entry of entries) {
    const {peers} = await bundleEntry(entry);
    const core = '@tensorflow/tfjs-core';
    const besides = {
      './tf': '@tensorflow/tfjs',
      './webgpu': '@tensorflow/tfjs-backend-webgpu',
      './graph': '@tensorflow/tfjs-converter',
      './layers': '@tensorflow/tfjs-layers',
      './models': '@tensorflow/tfjs-layers',
    }[entry];
    const wanted = [core, ...(besides == null ? [] : [besides])].sort().join();
    assert(peers.join() === wanted, `${entry} imports ${peers}, not ${wanted}`);
  }
}

// The package in Node.

/** Runs a script of test/package, which checks itself. Nothing may be printed. */
const runsInNode = (file) => async () => {
  const {stdout, stderr} = await run(process.execPath, [file]);
  const printed = withoutGreeting(stdout + stderr);
  assert(printed === '', `it printed: ${printed}`);
};

async function runsInDeno() {
  for (const file of ['node_tf.mjs', 'node_layers.mjs']) {
    const args = ['run', '--allow-all', '--quiet', '--node-modules-dir=manual', file];
    const {stdout, stderr} = await runBin('deno', args);
    const printed = withoutGreeting(stdout + stderr);
    assert(printed === '', `it printed: ${printed}`);
  }
}

/** The release candidate that the peer range takes. npm refuses to install what does not fit. */
async function runsWithNextTfjs() {
  const next = join(folder, 'consumer_of_next');
  cpSync(join(root, 'test', 'package'), next, {recursive: true});
  await run('npm', ['install', tarball, '@tensorflow/tfjs@4.23.0-rc.0', ...flagsOfNpm], next);
  for (const file of ['node_tf.mjs', 'node_graph.mjs', 'node_layers.mjs']) {
    const {stdout, stderr} = await run(process.execPath, [file], next);
    const printed = withoutGreeting(stdout + stderr);
    assert(printed === '', `it printed: ${printed}`);
  }
}

// The package through a bundler, and in a page.

const bundle = (options) =>
  esbuild.build({
    absWorkingDir: consumer,
    bundle: true,
    minify: true,
    platform: 'browser',
    format: 'iife',
    write: false,
    metafile: true,
    logLevel: 'silent',
    ...options,
  });

async function bundleEntry(entry) {
  const contents = `export * from '${packageJson.name}${entry.slice(1)}';`;
  const {outputFiles, metafile} = await bundle({
    stdin: {contents, resolveDir: consumer},
    external: ['@tensorflow/*'],
    format: 'esm',
  });
  const imports = Object.values(metafile.outputs).flatMap((output) => output.imports.map(({path}) => path));
  return {code: outputFiles[0].contents, peers: [...new Set(imports)].sort()};
}

async function treeShakes() {
  const entryPoints = ['bundle_one_op.mjs'];
  const {outputFiles} = await bundle({entryPoints, external: ['@tensorflow/*'], format: 'esm'});
  const code = outputFiles[0].text;
  assert(code.includes('moeSum'), 'the op that is used is missing');
  const others = ['moePermute', 'moeUnpermute', 'moeExpertMap', 'registerKernel'];
  const unused = others.filter((name) => code.includes(name));
  assert(unused.length === 0, `a bundle of moeSum alone has ${unused.join(', ')}`);
}

/** Bundles a script of test/package, tfjs included. */
async function bundleScript(name, options) {
  const {warnings} = await bundle({
    entryPoints: [`${name}.mjs`],
    outfile: `${name}.bundle.js`,
    write: true,
    ...options,
  });
  assert(warnings.length === 0, warnings.map(({text}) => text).join('\n'));
}

/** Bundles a script of test/package and runs it in the page of the same name. */
const runsBundled = (name) => async () => {
  await bundleScript(name);
  await runsInPage(`${name}.html`)();
};

/** The bundlers that applications are made with: their first choice of exports and fields of package.json. */
async function runsInViteBuild() {
  const warnings = [];
  const warn = (text) => warnings.push(text);
  const customLogger = {...createLogger('silent'), warn, warnOnce: warn};
  await buildWithVite({
    root: join(consumer, 'vite'),
    base: './',
    configFile: false,
    customLogger,
    logLevel: 'warn',
    build: {minify: false, chunkSizeWarningLimit: Infinity},
  });
  assert(warnings.length === 0, warnings.join('\n'));
  await runsInPage('vite/dist/index.html')();
}

async function runsInWebpackBundle() {
  const compiler = webpack({
    context: consumer,
    mode: 'production',
    optimization: {minimize: false},
    entry: './bundle_app.mjs',
    output: {path: consumer, filename: 'bundle_webpack.bundle.js'},
    performance: false,
  });
  const stats = await promisify(compiler.run.bind(compiler))();
  await promisify(compiler.close.bind(compiler))();
  const {errors, warnings} = stats.toJson({all: false, errors: true, warnings: true});
  assert(errors.length + warnings.length === 0, [...errors, ...warnings].map(({message}) => message).join('\n'));
  await runsInPage('bundle_webpack.html')();
}

/** A policy without eval or code in the page: `wasm-unsafe-eval` is for wasm alone. */
const policyOf = (script) => `default-src 'none'; script-src ${script}; worker-src 'self'; connect-src 'self'`;

async function runsUnderStrictPolicy() {
  await bundleScript('strict_policy');
  await bundleScript('module_worker', {format: 'esm'});
  await runsInPage('strict_policy.html', {policy: policyOf(`'self'`)})();
  await runsInPage('strict_policy.html?wasm', {policy: policyOf(`'self' 'wasm-unsafe-eval'`)})();
}

/** Files of this machine in place of those that an address of the web names. */
function fileOf(address) {
  const {hostname, pathname} = new URL(address);
  const [, name, file] = /^\/npm\/((?:@[^/]+\/)?[^/@]+)@[^/]+(\/.*)$/.exec(pathname) ?? [];
  const [, repository, path] = /^\/([^/]+\/[^/]+)\/resolve\/main\/(.*)$/.exec(pathname) ?? [];
  switch (hostname) {
    case 'consumer.test':
      return join(consumer, pathname);
    case 'cdn.jsdelivr.net':
      return join(consumer, 'node_modules', name, file);
    case 'huggingface.co':
      return join(hub, repository, path);
    default:
      throw new Error(`A program asks for ${address}, for which there is no file.`);
  }
}

/** Answers from disk: no server, and nothing else of these names to be reached. */
async function answer(route, policy) {
  const path = fileOf(route.request().url());
  const headers = {
    'Access-Control-Allow-Origin': '*',
    'Access-Control-Expose-Headers': '*',
    ...(policy == null ? {} : {'Content-Security-Policy': policy}),
  };
  const [, begin, last] = /bytes=(\d+)-(\d+)/.exec(route.request().headers().range ?? '') ?? [];
  if (begin == null) {
    return route.fulfill({path, headers});
  }
  const bytes = readFileSync(path);
  const body = bytes.subarray(Number(begin), Number(last) + 1);
  const range = `bytes ${begin}-${Number(begin) + body.length - 1}/${bytes.length}`;
  return route.fulfill({status: 206, headers: {...headers, 'Content-Range': range}, body});
}

const PRINT_TIMEOUT_MS = 30_000;

/** Its address is that of the pages, so that Chromium goes on in the same process, but it holds no file. */
const emptyPage = 'https://consumer.test/empty.html';

/**
 * One page of the browser for all files: a new one takes seconds to start its process and its GPU. `leave` ends the
 * document in it, and clears what that has stored.
 */
async function openPage() {
  browser = await chromium.launch({
    executablePath: ensureBrowsers(['chromium']).chromium,
    args: chromiumFlags,
    env: {...process.env, ...softwareGpuEnvironment},
  });
  const page = await browser.newPage();
  await page.route(emptyPage, (route) => route.fulfill({contentType: 'text/html', body: ''}));
  const devTools = await browser.contexts()[0].newCDPSession(page);
  const leave = async () => {
    await page.goto(emptyPage);
    await devTools.send('Storage.clearDataForOrigin', {origin: new URL(emptyPage).origin, storageTypes: 'all'});
  };
  return {page, leave};
}

/**
 * Opens a page of test/package. It awaits the page's `check()`, or that the page prints `awaited`. The page may raise
 * no other errors than `expectedError`. Every file has the Content Security Policy, if there is one. Gives what the
 * page printed.
 */
const runsInPage =
  (file, {expectedError, awaited, policy} = {}) =>
  async () => {
    opened ??= await openPage();
    const {page, leave} = opened;
    // A document of its own for each file: nothing is left of the one before, nor heard of it.
    await leave();
    const errors = [];
    let printed = '';
    const onError = ({message}) => errors.push(message);
    const onConsole = (message) => {
      // Not the browser's own warnings of slow reads.
      printed += message.type() === 'log' ? `${message.text()}\n` : '';
    };
    const onRequest = (route) =>
      route.request().url() === emptyPage
        ? route.fallback()
        : answer(route, policy).catch(({message}) => {
            errors.push(message);
            return route.abort();
          });
    page.on('pageerror', onError);
    page.on('console', onConsole);
    await page.route('**/*', onRequest);
    try {
      await page.goto(`https://consumer.test/${file}`);
      if (awaited == null) {
        await page.evaluate(() => globalThis.check());
      }
      const end = Date.now() + PRINT_TIMEOUT_MS;
      while (awaited != null && !printed.includes(awaited.trim()) && errors.length === 0 && Date.now() < end) {
        await page.waitForTimeout(50);
      }
    } finally {
      page.off('pageerror', onError);
      page.off('console', onConsole);
      await page.unroute('**/*', onRequest);
    }
    if (expectedError == null) {
      assert(errors.length === 0, errors.join('\n'));
    } else {
      const found = errors.length === 1 && expectedError.test(errors[0]);
      assert(found, `the errors were [${errors.join('\n')}], not ${expectedError}`);
    }
    return printed;
  };

// The pages, as printed.

const pagesOfPackage = () => ['README.md', ...readdirSync(join(installed, 'docs')).filter(isPage).map(inDocs)];
const isPage = (file) => file.endsWith('.md');
const inDocs = (file) => join('docs', file);

function checkPrinted(printed, wanted) {
  assert(printed.trimStart().startsWith(wanted.trim()), `it printed\n${printed}\nand not\n${wanted}`);
}

/** The first program, which needs no more than @tensorflow/tfjs, in Node.js. */
async function runReadmeInNode() {
  const [{code, printed}] = programsOf(readFileSync(join(installed, 'README.md'), 'utf8'));
  writeFileSync(join(consumer, 'readme.mjs'), code);
  const {stdout} = await run(process.execPath, ['readme.mjs']);
  checkPrinted(stdout, printed);
}

/** A checkpoint for programs that read one from their own server: float32 of zeros. */
function writeCheckpoint() {
  const [numExperts, hidden, intermediate] = [4, 32, 32];
  const block = 'model.layers.3.block_sparse_moe';
  const shapes = {[`${block}.gate.weight`]: [numExperts, hidden]};
  for (let expert = 0; expert < numExperts; expert++) {
    shapes[`${block}.experts.${expert}.w1.weight`] = [intermediate, hidden];
    shapes[`${block}.experts.${expert}.w2.weight`] = [hidden, intermediate];
    shapes[`${block}.experts.${expert}.w3.weight`] = [intermediate, hidden];
  }
  let end = 0;
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    const begin = end;
    end += 4 * shape[0] * shape[1];
    return [name, {dtype: 'F32', shape, data_offsets: [begin, end]}];
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(tensors)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(join(consumer, 'model.safetensors'), Buffer.concat([length, header, Buffer.alloc(end)]));
  const config = {
    model_type: 'mixtral',
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_local_experts: numExperts,
    num_experts_per_tok: 2,
  };
  writeFileSync(join(consumer, 'config.json'), JSON.stringify(config));
}

const installBackends = () =>
  install(
    '@tensorflow/tfjs',
    '@tensorflow/tfjs-backend-webgpu',
    '@tensorflow/tfjs-backend-wasm',
    '@huggingface/gguf',
    'webgpu',
  );

/** Tiny models in place of those that programs load from the Hugging Face Hub, by the names of their repositories. */
async function writeHub() {
  const models = join(root, 'test', 'golden', 'models');
  cpSync(join(models, 'granitemoe'), join(hub, 'ibm-granite', 'granite-3.0-1b-a400m-instruct'), {recursive: true});

  const [numExperts, hidden, intermediate] = [4, 256, 256];
  const q4k = (...shape) => {
    const numWeights = shape.reduce((product, length) => product * length);
    return {shape, type: 12, bytes: new Uint8Array((numWeights / 256) * 144)};
  };
  const block = 'blk.3.ffn';
  const {ggufFile} = await import(await bundleForNode('gguf', {entryPoints: [join(root, 'test/support/gguf.ts')]}));
  const file = ggufFile([
    {
      name: `${block}_gate_inp.weight`,
      shape: [numExperts, hidden],
      type: 0,
      bytes: new Uint8Array(4 * numExperts * hidden),
    },
    {name: `${block}_gate_exps.weight`, ...q4k(numExperts, intermediate, hidden)},
    {name: `${block}_up_exps.weight`, ...q4k(numExperts, intermediate, hidden)},
    {name: `${block}_down_exps.weight`, ...q4k(numExperts, hidden, intermediate)},
  ]);
  const config = {
    model_type: 'qwen3_moe',
    hidden_size: hidden,
    moe_intermediate_size: intermediate,
    num_experts: numExperts,
    num_experts_per_tok: 2,
  };
  for (const [name, path, contents] of [
    ['Qwen/Qwen3-30B-A3B-GGUF', 'Qwen3-30B-A3B-Q4_K_M.gguf', file],
    ['Qwen/Qwen3-30B-A3B', 'config.json', JSON.stringify(config)],
  ]) {
    mkdirSync(join(hub, name), {recursive: true});
    writeFileSync(join(hub, name, path), contents);
  }
}

/** A software GPU takes longer to compile the shaders of a small program than the CPU takes to run it. */
const WITHOUT_WEBGL = '?tfjsflags=HAS_WEBGL:false';

/** Blocks of a page that are programs, also where `programsOf` does not find them. */
const numProgramsIn = (markdown) =>
  [...markdown.matchAll(/^ *```(?:html|(?:js|javascript|mjs|ts)\b.*\n *import\b)/gm)].length;

/** All programs of all pages, with the packages that they say they need: in Node.js if they import webgpu. */
async function runPages() {
  writeCheckpoint();
  await writeHub();
  const texts = pagesOfPackage().map((page) => [page, readFileSync(join(installed, page), 'utf8')]);
  const programs = texts.flatMap(([page, text]) =>
    programsOf(text).map((program, i) => ({
      ...program,
      name: `${page.replace(/\W/g, '_')}_${i}`,
      where: `program ${i + 1} of ${page}`,
      isForNode: program.code.includes(`from 'webgpu'`),
    })),
  );
  const silent = programs.find(({language, printed}) => language === 'html' && printed === '');
  assert(silent == null, `${silent?.where} is a page that does not say what it prints.`);
  const bundled = programs.filter(({language, isForNode}) => language === 'js' && !isForNode);
  for (const {name, language, code} of programs) {
    writeFileSync(join(consumer, `${name}.${language === 'js' ? 'mjs' : language}`), code);
  }
  for (const {name} of bundled) {
    const html = `<!doctype html><script>globalThis.check = () => import('./bundles/${name}.js');</script>`;
    writeFileSync(join(consumer, `${name}.html`), html);
  }
  // One copy of tfjs for all of them, which is bundled once.
  const entryPoints = bundled.map(({name}) => `${name}.mjs`);
  // Its file for browsers, which its exports do not name.
  const alias = {'@huggingface/gguf': './node_modules/@huggingface/gguf/dist/browser/index.mjs'};
  await bundle({entryPoints, alias, outdir: 'bundles', write: true, format: 'esm', splitting: true});
  let numRun = 0;
  for (const {name, language, code, printed, where, isForNode} of programs) {
    try {
      if (isForNode) {
        const {stdout} = await run(process.execPath, [`${name}.mjs`]);
        checkPrinted(stdout, printed);
      } else {
        const file = `${name}.html${code.includes('webgl') ? '' : WITHOUT_WEBGL}`;
        checkPrinted(await runsInPage(file, {awaited: language === 'html' ? printed : undefined})(), printed);
      }
    } catch (error) {
      throw new Error(`${where}: ${error.message}`);
    }
    numRun++;
  }
  const numPrograms = texts.reduce((sum, [, text]) => sum + numProgramsIn(text), 0);
  assert(numRun === numPrograms, `${numRun} programs ran, but the pages have ${numPrograms}`);
}

// The types, as a consumer compiles them.

const compiles = (resolution) => async () => {
  const types = join(consumer, 'types');
  for (const extension of ['mts', 'cts']) {
    cpSync(join(types, 'consumer.ts'), join(types, `consumer.${extension}`));
  }
  await runBin('tsc', ['-p', `tsconfig.${resolution}.json`], types);
};

const setUp = [
  ['builds', buildPackage],
  ['packs', packPackage],
  ['installs from the tarball', installPackage],
];

const gates = [
  ['publint, strict', lintPackage],
  ['are the types wrong', checkTypesOfEntries],
  ['no file or deep import of another package', checkFiles],
  ['folders for resolvers that do not read exports', checkFolders],
  ['links of its pages', checkLinks],
  ['sizes of README.md', checkSizes],
  ['version_moe is the version of package.json', checkVersion],
  ['entries import only their peers', checkPeersOfEntries],
  ['Node, ESM: tfjs-moe/tf', runsInNode('node_tf.mjs')],
  ['Node, ESM: tfjs-moe beside @tensorflow/tfjs', runsInNode('node_index.mjs')],
  ['Node, CommonJS', runsInNode('node_require.cjs')],
  ['Node, ESM and CommonJS in one process', runsInNode('node_two_formats.mjs')],
  ['importing registers kernels and gradients, and brings no backend', runsInNode('node_registration.mjs')],
  ['tfjs-moe/ops registers nothing, tfjs-moe/kernels/cpu does', runsInNode('node_ops_only.mjs')],
  ['tfjs-moe/graph loads and runs a GraphModel', runsInNode('node_graph.mjs')],
  [
    'tfjs-moe/checkpoints: a layer of a shard of 600 MiB by ranges, in 128 MiB beside its weights',
    runsInNode('checkpoint_memory.mjs'),
  ],
  ['tfjs-moe/layers, ESM: a model trains, predicts, saves and loads', runsInNode('node_layers.mjs')],
  ['tfjs-moe/layers, CommonJS', runsInNode('node_layers.cjs')],
  ['the first example of README.md, in Node', runReadmeInNode],
  ['types, moduleResolution bundler', compiles('bundler')],
  ['types, moduleResolution node16, .mts and .cts', compiles('node16')],
  ['types, moduleResolution node10', compiles('node10')],
  ['tree shaking', treeShakes],
  ['bundled, in Chromium', runsBundled('bundle_app')],
  ['bundled with a bare import, in Chromium', runsBundled('bundle_bare_import')],
  ['script tag after tf.min.js', runsInPage('script_tag.html')],
  ['script tag after tf.es2017.min.js', runsInPage('script_tag_es2017.html')],
  [
    'script tag without tf',
    runsInPage('script_tag_without_tf.html', {expectedError: /Load tf\.min\.js .*before this script/}),
  ],
  ['bundled by Vite, in Chromium', runsInViteBuild],
  ['bundled by webpack, in Chromium', runsInWebpackBundle],
  ['Deno', runsInDeno],
  // What no gate before this one needs.
  ['installs beside all backends', installBackends],
  ['a page and a module worker under a strict policy, on cpu, webgl, webgpu and wasm', runsUnderStrictPolicy],
  ['the programs of README.md and docs', runPages],
  ['installs beside the next @tensorflow/tfjs, and runs there', runsWithNextTfjs],
];

async function passes([name, check]) {
  const start = performance.now();
  try {
    await check();
    console.log(`ok ${name}, ${((performance.now() - start) / 1000).toFixed(1)} s`);
    return true;
  } catch (error) {
    console.log(`FAILED ${name}: ${error.message}`);
    return false;
  }
}

async function main() {
  const results = [];
  for (const step of setUp) {
    results.push(await passes(step));
    if (results.includes(false)) {
      return results;
    }
  }
  for (const gate of gates) {
    results.push(await passes(gate));
  }
  return results;
}

try {
  const results = await main();
  const failed = results.filter((passed) => !passed).length;
  console.log(`${results.length - failed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
} finally {
  await browser?.close();
  rmSync(folder, {recursive: true, force: true});
}
