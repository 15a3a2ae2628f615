/**
 * Bundles specs with every docstring example of src, each with the backends that the matrix has for it. As a Karma
 * preprocessor: test/main.ts with every spec below test/.
 */
const {readdirSync, readFileSync} = require('node:fs');
const {join} = require('node:path');
const esbuild = require('esbuild');
const {backendsOfFile, hasShapesAsUniforms} = require('./matrix.js');

const testFolder = join(__dirname, '..');
const sourceFolder = join(testFolder, '..', 'src');
const exampleFolders = ['ops', 'graph', 'layers', 'checkpoints', 'models'];

const virtualModule = (name, contents) => ({
  name,
  setup(build) {
    build.onResolve({filter: new RegExp(`^${name}$`)}, () => ({path: name, namespace: name}));
    build.onLoad({filter: /.*/, namespace: name}, () => ({contents: contents(), resolveDir: testFolder}));
  },
});

const specFiles = () => readdirSync(testFolder, {recursive: true}).filter((file) => file.endsWith('_test.ts')).sort();

/** In calls, not imports: a file that no backend of the page is for is not read, since tfjs refuses to describe it. */
const requireSpecs = (files) =>
  [
    `import {setSpecBackends} from './runner/backends';`,
    ...files.map((file) => {
      const backends = `${JSON.stringify(backendsOfFile(file))}, ${hasShapesAsUniforms(file)}`;
      return `if (setSpecBackends(${backends})) require('./${file}');`;
    }),
  ].join('\n');

/** The ```js blocks of all docstrings: their code, and where it is, `line` counted from 0. */
const docstringBlocks = () =>
  exampleFolders.flatMap((folder) =>
    readdirSync(join(sourceFolder, folder), {recursive: true}).filter((file) => file.endsWith('.ts')).sort().flatMap((file) => {
      const source = readFileSync(join(sourceFolder, folder, file), 'utf8');
      return [...source.matchAll(/\* ```js\n([\s\S]*?)\* ```/g)].map(({1: block, index}) => ({
        file,
        path: `src/${folder}/${file}`,
        line: source.slice(0, index).split('\n').length,
        code: block.replace(/^ \* ?/gm, ''),
      }));
    }));

/**
 * Each block as a function of (tf, expectValue, layers): a statement `expression; // => value` becomes
 * `expectValue(expression, value)`, and an import from 'tfjs-moe/layers', 'tfjs-moe/checkpoints' or 'tfjs-moe/models' takes from `layers`.
 */
const docstringExamples = () => {
  const examples = docstringBlocks().map(({file, code}) => {
    const runnable = code
      .replace(/^import (\{.*\}) from 'tfjs-moe\/(?:layers|checkpoints|models)';$/gm, 'const $1 = layers;')
      .replace(/^(.+); \/\/ => (.+)$/gm, (_, expression, value) => `expectValue(${expression}, ${value});`);
    return `{file: ${JSON.stringify(file)}, run: async (tf, expectValue, layers) => {${runnable}}}`;
  });
  return `export const docstringExamples = [${examples.join(',\n')}];`;
};

/** The cases of a folder of test/golden, by name: config.json, and case.json and the file if there are any. */
const goldens = (folderName, exportName) => () => {
  const folder = join(testFolder, 'golden', folderName);
  const cases = readdirSync(folder).sort().map((name) => {
    const files = readdirSync(join(folder, name));
    const fieldOf = {'config.json': 'config', 'case.json': 'recorded', 'model.safetensors': 'file'};
    const fields = files.map((file) => `${fieldOf[file]}: require('./golden/${folderName}/${name}/${file}')`);
    return `${name}: {${fields.join(', ')}}`;
  });
  return `export const ${exportName} = {${cases.join(',\n')}};`;
};

/** safetensors files as Uint8Array. */
const binaryFiles = {
  name: 'binary-files',
  setup(build) {
    build.onLoad({filter: /\.safetensors$/}, ({path}) => ({contents: readFileSync(path), loader: 'binary'}));
  },
};

/**
 * esbuild plugins that resolve 'all-specs' to the spec files that `filesOf` gives, 'docstring-examples',
 * 'checkpoint-goldens' and 'model-goldens'.
 */
const specPlugins = (filesOf) => [
  virtualModule('all-specs', () => requireSpecs(filesOf())),
  virtualModule('docstring-examples', docstringExamples),
  virtualModule('checkpoint-goldens', goldens('checkpoints', 'checkpointGoldens')),
  virtualModule('model-goldens', goldens('models', 'modelGoldens')),
  binaryFiles,
];

/** test/main.ts with every spec, as text. */
async function bundleSpecFiles() {
  const {outputFiles} = await esbuild.build({
    entryPoints: [join(testFolder, 'main.ts')],
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    target: 'es2022',
    logLevel: 'warning',
    // Its file for browsers, which its exports do not name.
    alias: {'@huggingface/gguf': join(testFolder, '..', 'node_modules/@huggingface/gguf/dist/browser/index.mjs')},
    // The sideEffects list of package.json is for those who use the package, not for its own specs and tools.
    ignoreAnnotations: true,
    plugins: specPlugins(specFiles),
  });
  return outputFiles[0].text;
}

/** SPEC_BUNDLE names a bundle that is there already: npm test makes one for all pages. */
function bundleSpecs() {
  return async (content, file, done) => {
    try {
      const bundle = process.env.SPEC_BUNDLE ? readFileSync(process.env.SPEC_BUNDLE, 'utf8') : await bundleSpecFiles();
      file.path = file.originalPath.replace(/\.ts$/, '.js');
      done(null, bundle);
    } catch (error) {
      done(error);
    }
  };
}

module.exports = {bundleSpecFiles, bundleSpecs, docstringBlocks, specFiles, specPlugins};
