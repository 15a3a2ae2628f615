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

/** The backends of a cell of the matrix in which this spec file runs, by browser. */
const backendsOfFile = (file) => {
  const runs = (what) => what === 'every' || smokeFiles.includes(file);
  return Object.fromEntries(
    Object.entries(matrix).map(([place, cells]) => [place, Object.keys(cells).filter((name) => runs(cells[name]))]),
  );
};

/** The parts that `npm test` runs one after the other, by what they are of: each compiles a family's shaders once. */
const parts = {
  experts: [
    /^golden\/(grouped_mat_mul|model_shapes)_/,
    /^gradients\/(moe_grouped_mat_mul_grad|second_order)_/,
    /^ops\/(fused|long_sums|moe_grouped_mat_mul|shared_experts|special_activations|token_axes)/,
    /^webgpu\/moe_grouped_mat_mul_/,
  ],
  models: [/^(browser|checkpoints|examples|graph|layers)\//, /^docstring_examples_/],
  // Permutations, routers, and what is of no one family.
  routing: [/^/],
};

/** Of these spec files those of a part; all without one. Each is in the first part that names it. */
const specFilesOfPart = (part, files) => {
  if (part != null && !(part in parts)) {
    throw new Error(`--part must be one of ${Object.keys(parts).join(', ')}, but is '${part}'.`);
  }
  const partOf = (file) => Object.keys(parts).find((name) => parts[name].some((pattern) => pattern.test(file)));
  return files.filter((file) => part == null || partOf(file) === part);
};

module.exports = {backendsOfFile, parts, specFilesOfPart};
