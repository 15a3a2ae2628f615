/**
 * Writes dist/: the entries as ES modules and CommonJS, their types, and the script-tag build. Beside it a folder for
 * each entry, for resolvers that do not read `exports`.
 */
import {mkdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {dirname, join, relative} from 'node:path';
import {build} from 'tsdown';
import ts from 'typescript';
import {root} from './set_up.mjs';

// dist/x.mjs is made of src/x.ts, for each module in the `exports` of package.json.
const {exports} = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const modules = Object.entries(exports).filter(([, paths]) => paths.import != null);
const entries = modules.map(([, paths]) => paths.import.default.replace(/^\.\/dist\/(.*)\.mjs$/, 'src/$1.ts'));

const common = {
  cwd: root,
  config: false,
  logLevel: 'warn',
  clean: false,
  dts: false,
  platform: 'neutral',
  target: 'es2019',
  // tfjs keeps its engine and registries in module state: a bundled copy would be a second one.
  deps: {neverBundle: /^@tensorflow\//},
};

/** One output file for each source file, so that all entries share one copy and a bundler can drop the rest. */
const buildModules = () =>
  build({
    ...common,
    entry: entries,
    root: 'src',
    format: ['esm', 'cjs'],
    unbundle: true,
    fixedExtension: true,
    outputOptions: {esModule: true, strict: true},
  });

/** As tfjs's own backends do: exports go to the global `tf`, and imports of tfjs read it. */
const buildScript = () =>
  build({
    ...common,
    entry: {'tf-moe.min': 'src/script.ts'},
    format: 'iife',
    minify: true,
    sourcemap: true,
    outputOptions: {
      entryFileNames: '[name].js',
      name: 'tf',
      extend: true,
      esModule: false,
      generatedCode: {symbols: false},
      globals: () => 'tf',
      // Before the wrapper, which would make a `tf` of its own. A page's <p id="tf"> is a global, too.
      banner:
        'if (typeof tf === "undefined" || typeof tf.registerKernel !== "function") throw new Error(' +
        '"tf-moe.min.js: TensorFlow.js is not loaded. Load tf.min.js of @tensorflow/tfjs before this script.");',
    },
  });

/**
 * Takes indentation and comments out of the shaders of the script build. Nothing else in it has lines, because it is
 * minified. Lines stay, for the source map.
 */
function shortenShaders() {
  const file = join(root, 'dist', 'tf-moe.min.js');
  const outdented = readFileSync(file, 'utf8').replace(/\n[ \t]+/g, '\n');
  const withoutComments = outdented.replace(/\n\/\/[^\n`]*(?=\n)/g, (line) => (line.includes('${') ? line : '\n'));
  writeFileSync(file, withoutComments);
}

// `from './x'`, `import './x'` and `import('./x')`
const relativeImport = /(\b(?:from|import) |\bimport\()(['"])(\.{1,2}\/[^'"]+)\2/g;

/**
 * Types by tsc itself: bundlers of types drop `import './chained_ops'`, and with it the chained methods.
 * Written once for each module format, with the extensions that Node's resolution asks for.
 */
function buildTypes() {
  const {config} = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile);
  const {options} = ts.convertCompilerOptionsFromJson(config.compilerOptions, root);
  const program = ts.createProgram(
    entries.map((entry) => join(root, entry)),
    {
      ...options,
      types: [],
      noEmit: false,
      declaration: true,
      emitDeclarationOnly: true,
      rootDir: join(root, 'src'),
      outDir: join(root, 'dist'),
    },
  );
  const {diagnostics} = program.emit(undefined, (path, text) => {
    for (const format of ['m', 'c']) {
      const declarations = text.replace(relativeImport, `$1$2$3.${format}js$2`);
      const file = path.replace(/\.d\.ts$/, `.d.${format}ts`);
      mkdirSync(dirname(file), {recursive: true});
      writeFileSync(file, declarations);
    }
  });
  const errors = [...ts.getPreEmitDiagnostics(program), ...diagnostics];
  if (errors.length > 0) {
    const host = {getCanonicalFileName: (name) => name, getCurrentDirectory: () => root, getNewLine: () => '\n'};
    throw new Error(`The types do not build.\n${ts.formatDiagnostics(errors, host)}`);
  }
}

/** A folder's package.json names its modules: Parcel and other resolvers look for 'tfjs-moe/tf' there. */
function buildFolders() {
  for (const [name, paths] of modules.filter(([entry]) => entry !== '.')) {
    const folder = join(root, name);
    const from = (path) => relative(folder, join(root, path));
    const fields = {
      main: from(paths.require.default),
      module: from(paths.import.default),
      types: from(paths.require.types),
    };
    mkdirSync(folder, {recursive: true});
    writeFileSync(join(folder, 'package.json'), `${JSON.stringify(fields, null, 2)}\n`);
  }
}

rmSync(join(root, 'dist'), {recursive: true, force: true});
await buildModules();
await buildScript();
shortenShaders();
buildTypes();
buildFolders();
