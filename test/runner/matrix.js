/**
 * The matrix: which specs run where. `every` is all spec files, `smoke` those of `smokeFiles`.
 *
 * wasm runs cpu's host kernels, and the cpu kernels are the same JavaScript in both browsers: there the smoke shows that
 * they are registered, run and free what they take. Shaders are compiled by each browser's own compiler.
 *
 * Within its file a spec runs on all of these backends, but for those that need no kernel, which are for cpu alone: the
 * errors that ops throw before any work, of which one an op runs everywhere, and what is of tfjs-layers or of numbers.
 * Their describeWithFlags says so.
 *
 * No backend is left out because it cannot start: that each of them does is the first spec of every page.
 */
const matrix = {
  Chromium: {cpu: 'every', wasm: 'smoke', webgl: 'every', webgpu: 'every'},
  Firefox: {cpu: 'smoke', wasm: 'smoke', webgl: 'every', webgpu: 'every'},
  'Node.js': {cpu: 'every', webgpu: 'every'},
};

/** Every kernel, registration, memory, gradients, errors and the layer, once. */
const smokeFiles = [
  'docstring_examples_test.ts',
  'golden/worked_examples_test.ts',
  'gradients/gradients_test.ts',
  'layers/mixture_of_experts_test.ts',
  'ops/casts_test.ts',
  'ops/errors_test.ts',
  'ops/memory_test.ts',
  'registration/registration_test.ts',
];

/** The backends on which this spec file runs, by browser. Files in webgl/ and webgpu/ are of that backend alone. */
const backendsOfFile = (file) => {
  const [folder] = file.split('/');
  const isOf = (name) => !['webgl', 'webgpu'].includes(folder) || name === folder;
  const isIn = (what) => what === 'every' || smokeFiles.includes(file);
  return Object.fromEntries(
    Object.entries(matrix).map(([place, cells]) => [
      place,
      Object.keys(cells).filter((name) => isOf(name) && isIn(cells[name])),
    ]),
  );
};

/** The backends of each page of a browser. No two pages compile the same shaders, and the longest is the first. */
const pages = [['webgpu'], ['webgl', 'cpu', 'wasm']];

module.exports = {backendsOfFile, pages};
