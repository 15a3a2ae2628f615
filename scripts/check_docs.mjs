/**
 * What editors and pages show of the package: every export is in scripts/exports.json, by entry, so that none comes or
 * goes unnoticed (--write lists them anew); every example in a docstring compiles under strict TypeScript, as it would
 * where somebody pastes it; every property of an exported type has a description; every excerpt in docs is in the file
 * that it names. Exit code 1 with a line for each fault.
 */
import {existsSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join, relative} from 'node:path';
import ts from 'typescript';
import {excerptsOf} from './doc_programs.mjs';
import {root} from './set_up.mjs';

const {docstringBlocks} = createRequire(import.meta.url)('../test/runner/bundle_specs.js');

const entryPath = (name) => join(root, 'src', `${name}.ts`);
const entryNames = ['index', 'ops/index', 'graph/index', 'layers/index', 'checkpoints/index', 'models/index', 'webgpu'];
const entries = entryNames.map(entryPath);
/** Of kernels: who writes one reads contract/kernel_names.ts, which has its shapes beside the names. */
const isOfKernels = (typeName) => /(Inputs|Attrs|Outputs|MoeKernels)$/.test(typeName);

const header = "import * as tf from 'tfjs-moe/tf';\n";
const examples = new Map(
  docstringBlocks().map((block, i) => [
    join(root, 'build', 'docstring_examples', `${i}.ts`),
    {...block, text: `${header}${block.code}`},
  ]),
);

const {config} = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile);
const {options} = ts.parseJsonConfigFileContent({...config, include: [], files: entries}, ts.sys, root);
const compilerOptions = {
  ...options,
  // An example may leave `tf` alone, or name what it only shows.
  noUnusedLocals: false,
  paths: {'tfjs-moe': ['./src/index.ts'], 'tfjs-moe/tf': ['./src/tf.ts'], 'tfjs-moe/*': ['./src/*/index.ts']},
};
const host = ts.createCompilerHost(compilerOptions);
const {fileExists, readFile} = host;
host.fileExists = (path) => examples.has(path) || fileExists(path);
host.readFile = (path) => examples.get(path)?.text ?? readFile(path);
const program = ts.createProgram([...entries, ...examples.keys()], compilerOptions, host);

function* faultsOfExamples() {
  const headerLines = header.split('\n').length - 1;
  for (const [path, {path: sourcePath, line}] of examples) {
    const file = program.getSourceFile(path);
    const diagnostics = [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)];
    for (const {start, messageText} of diagnostics) {
      const at = line + file.getLineAndCharacterOfPosition(start).line - headerLines + 1;
      yield `${sourcePath}:${at}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
    }
  }
}

const isInSource = (declaration) => declaration.getSourceFile().fileName.startsWith(join(root, 'src'));

function* faultsOfProperties() {
  const checker = program.getTypeChecker();
  const seen = new Set();
  for (const entry of entries) {
    const module = checker.getSymbolAtLocation(program.getSourceFile(entry));
    for (const exported of checker.getExportsOfModule(module)) {
      const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
      const isObjectType = symbol.flags & (ts.SymbolFlags.TypeAlias | ts.SymbolFlags.Interface);
      if (!isObjectType || isOfKernels(symbol.name)) {
        continue;
      }
      for (const property of checker.getPropertiesOfType(checker.getDeclaredTypeOfSymbol(symbol))) {
        const [declaration] = property.declarations ?? [];
        const isUndocumented = property.getDocumentationComment(checker).length === 0;
        if (declaration == null || !isInSource(declaration) || seen.has(declaration) || !isUndocumented) {
          continue;
        }
        seen.add(declaration);
        const file = declaration.getSourceFile();
        const {line} = file.getLineAndCharacterOfPosition(declaration.getStart());
        yield `${relative(root, file.fileName)}:${line + 1}: ${symbol.name}.${property.name} has no description.`;
      }
    }
  }
}

const exportList = join(root, 'scripts', 'exports.json');

/** The names that each entry exports; a type has 'type ' before it. */
function exportsOfEntries() {
  const checker = program.getTypeChecker();
  const namesOf = (entry) =>
    checker
      .getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(entryPath(entry))))
      .map((exported) => {
        const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
        return `${symbol.flags & ts.SymbolFlags.Value ? '' : 'type '}${exported.name}`;
      })
      .sort();
  return Object.fromEntries(entryNames.map((entry) => [entry, namesOf(entry)]));
}

function* faultsOfExports() {
  const listed = JSON.parse(readFileSync(exportList, 'utf8'));
  for (const [entry, names] of Object.entries(exportsOfEntries())) {
    const known = listed[entry] ?? [];
    for (const name of names.filter((name) => !known.includes(name))) {
      yield `src/${entry}.ts exports ${name}, which scripts/exports.json does not list.`;
    }
    for (const name of known.filter((name) => !names.includes(name))) {
      yield `src/${entry}.ts no longer exports ${name}, which scripts/exports.json lists.`;
    }
  }
}

function* faultsOfExcerpts() {
  const docs = join(root, 'docs');
  for (const page of readdirSync(docs).filter((file) => file.endsWith('.md'))) {
    for (const {path, parts} of excerptsOf(readFileSync(join(docs, page), 'utf8'))) {
      const source = existsSync(join(root, path)) ? readFileSync(join(root, path), 'utf8') : '';
      for (const part of parts.filter((part) => !source.includes(part))) {
        yield `docs/${page} has an excerpt that ${path} has not:\n${part}`;
      }
    }
  }
}

if (process.argv.includes('--write')) {
  writeFileSync(exportList, `${JSON.stringify(exportsOfEntries(), null, 2)}\n`);
}

const faults = [...faultsOfExports(), ...faultsOfExamples(), ...faultsOfProperties(), ...faultsOfExcerpts()];
console.log(faults.length === 0 ? `${examples.size} examples compile` : faults.join('\n'));
process.exitCode = faults.length === 0 ? 0 : 1;
