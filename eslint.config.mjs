import {globalIgnores} from 'eslint/config';
import tseslint from 'typescript-eslint';

/** Focused specs leave the others out, silenced ones themselves, and both look like a pass. */
const onlyWholeSuites = {
  selector: 'CallExpression[callee.name=/^(fdescribe|fit|xdescribe|xit|pending)$/]',
  message: 'No focused or silenced specs.',
};
const noDefaultExport = {
  selector: 'ExportDefaultDeclaration, ExportSpecifier[exported.name="default"]',
  message: 'Export by name.',
};
/** On webgl and webgpu it stalls or fails; the host kernels' wrapper is the one place that may. */
const noSyncReads = {
  selector:
    'MemberExpression[property.name=/^(dataSync|readSync|arraySync|bytesSync)$/], ' +
    'ObjectPattern > Property[key.name=/^(dataSync|readSync|arraySync|bytesSync)$/]',
  message: 'Kernels never read a device back; only src/kernels/shared/host_kernel.ts reads, from host backends.',
};

const configs = ['eslint.config.mjs', 'karma.conf.js', '.dependency-cruiser.cjs'];

export default tseslint.config(
  globalIgnores(['dist/', 'build/', 'coverage/']),
  {
    files: ['**/*.{ts,mjs,cjs,js}'],
    extends: [tseslint.configs.base],
    linterOptions: {reportUnusedDisableDirectives: 'error'},
    rules: {
      'no-restricted-syntax': ['error', onlyWholeSuites, noDefaultExport],
      '@typescript-eslint/no-unused-vars': ['error', {argsIgnorePattern: '^_', ignoreRestSiblings: true}],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', {fixStyle: 'inline-type-imports'}],
      eqeqeq: ['error', 'always', {null: 'ignore'}],
      'no-var': 'error',
      'prefer-const': 'error',
    },
  },
  {
    // What tsconfig.json has: rules that ask the type checker.
    files: ['{src,test,bench,examples,demo,device_check}/**/*.ts'],
    ignores: ['test/package/**'],
    languageOptions: {parserOptions: {projectService: true, tsconfigRootDir: import.meta.dirname}},
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/only-throw-error': 'error',
    },
  },
  {
    files: ['src/kernels/**/*.ts'],
    ignores: ['src/kernels/shared/host_kernel.ts'],
    rules: {'no-restricted-syntax': ['error', onlyWholeSuites, noDefaultExport, noSyncReads]},
  },
  {
    files: configs,
    rules: {'no-restricted-syntax': ['error', onlyWholeSuites]},
  },
  {
    // Not in specs: a table of cases wants each case on one line.
    files: ['**/*.{ts,mjs,cjs,js}'],
    ignores: ['test/**'],
    rules: {'max-len': ['error', {code: 120, ignoreUrls: true, ignoreTemplateLiterals: true}]},
  },
);
