/** Karma preprocessor: bundles test/main.ts with every spec below test/, and every docstring example of src. */
const {readdirSync, readFileSync} = require('node:fs');
const {join, relative} = require('node:path');
const esbuild = require('esbuild');

const testFolder = join(__dirname, '..');
const sourceFolder = join(testFolder, '..', 'src');
const exampleFolders = ['ops', 'graph', 'layers'];

const virtualModule = (name, contents) => ({
  name,
  setup(build) {
    build.onResolve({filter: new RegExp(`^${name}$`)}, () => ({path: name, namespace: name}));
    build.onLoad({filter: /.*/, namespace: name}, () => ({contents: contents(), resolveDir: testFolder}));
  },
});

const importAllSpecs = () =>
  readdirSync(testFolder, {recursive: true})
    .filter((file) => file.endsWith('_test.ts'))
    .sort()
    .map((file) => `import './${relative('.', file)}';`)
    .join('\n');

/**
 * Each ```js block in a docstring, as a function of (tf, expectValue, layers): a statement `expression; // => value`
 * becomes `expectValue(expression, value)`, and an import from 'tfjs-moe/layers' takes from `layers`.
 */
const docstringExamples = () => {
  const examples = [];
  for (const folder of exampleFolders) {
    for (const file of readdirSync(join(sourceFolder, folder)).sort()) {
      const source = readFileSync(join(sourceFolder, folder, file), 'utf8');
      for (const [, block] of source.matchAll(/\* ```js\n([\s\S]*?)\* ```/g)) {
        const code = block
          .replace(/^ \* ?/gm, '')
          .replace(/^import (\{.*\}) from 'tfjs-moe\/layers';$/gm, 'const $1 = layers;')
          .replace(/^(.+); \/\/ => (.+)$/gm, (_, expression, value) => `expectValue(${expression}, ${value});`);
        examples.push(`{file: ${JSON.stringify(file)}, run: async (tf, expectValue, layers) => {${code}}}`);
      }
    }
  }
  return `export const docstringExamples = [${examples.join(',\n')}];`;
};

function bundleSpecs() {
  return async (content, file, done) => {
    try {
      const {outputFiles} = await esbuild.build({
        entryPoints: [file.originalPath],
        bundle: true,
        write: false,
        format: 'iife',
        sourcemap: 'inline',
        platform: 'browser',
        target: 'es2022',
        logLevel: 'warning',
        // The sideEffects list of package.json is for those who use the package, not for its own specs and tools.
        ignoreAnnotations: true,
        plugins: [
          virtualModule('all-specs', importAllSpecs),
          virtualModule('docstring-examples', docstringExamples),
        ],
      });
      file.path = file.originalPath.replace(/\.ts$/, '.js');
      done(null, outputFiles[0].text);
    } catch (error) {
      done(error);
    }
  };
}
bundleSpecs.$inject = [];

module.exports = {bundleSpecs};
