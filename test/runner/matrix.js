/**
 * The matrix: which specs run where. `every` is all spec files, `kernels` all but the `composites`, `smoke` the
 * `smokeFiles` alone, and `engine` the `engineFiles`.
 *
 * Shaders are compiled by each browser's own compiler, so that what shows a kernel right runs on each GPU backend of
 * each browser. Composites are made of our ops and of tfjs's: they run once on each GPU backend, in Firefox, whose
 * software GPU compiles their shaders in a third of the time. Elsewhere the docstring examples have some of each. wasm
 * runs cpu's host kernels, and the cpu kernels are the same JavaScript in both browsers: there the smoke shows that they
 * are registered, run and free what they take.
 *
 * Within its file a spec runs on all of these backends, but for those that need no kernel, which are for cpu alone: the
 * errors that ops throw before any work, of which one an op runs everywhere, and what is of tfjs-layers or of numbers.
 * Their describeWithFlags says so.
 *
 * The spec files of device_check/checks.json run in the page of device_check on the GPU backends of Chromium, by
 * scripts/check_device_page.mjs, and not in Karma's.
 *
 * The blocks of checkpoints that transformers recorded are no composites: four of them run on every GPU page.
 *
 * No backend is left out because it cannot start: that each of them does is the first spec of every page.
 */
const deviceCheck = require('../../device_check/checks.json');

const matrix = {
  Chromium: {cpu: 'every', wasm: 'smoke', webgl: 'kernels', webgpu: 'kernels'},
  Firefox: {cpu: 'smoke', wasm: 'smoke', webgl: 'every', webgpu: 'every'},
  // WebKitGTK, which has no WebGPU.
  WebKit: {cpu: 'engine', wasm: 'engine', webgl: 'engine'},
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

/** What an engine may do in its own way: compile shaders, read files in slices, store models, keep bits of floats. */
const engineFiles = [
  'browser/stored_graph_model_test.ts',
  'checkpoints/streaming_test.ts',
  'golden/vllm_cuda_test.ts',
  'golden/worked_examples_test.ts',
  'layers/save_and_load_test.ts',
  'ops/moe_permute_test.ts',
  'registration/registration_test.ts',
];

const composites =
  /^(browser|demo|examples|graph|layers|models)\/|^checkpoints\/(?!families_)|^golden\/model_shapes_|^gradients\/second_order_/;

/** The page's backends in Chromium. The host's are Karma's. */
const deviceCheckBackends = ['webgpu', 'webgl'];
const deviceCheckFiles = deviceCheck.flatMap(({files}) => files);
const isOnCheckedPage = (place, name, file) =>
  place === 'Chromium' && deviceCheckBackends.includes(name) && deviceCheckFiles.includes(file);

const isIn = {
  every: () => true,
  kernels: (file) => !composites.test(file),
  smoke: (file) => smokeFiles.includes(file),
  engine: (file) => engineFiles.includes(file),
};

/** The backends on which this spec file runs, by browser. Files in webgl/ and webgpu/ are of that backend alone. */
const backendsOfFile = (file) => {
  const [folder] = file.split('/');
  const isOf = (name) => !['webgl', 'webgpu'].includes(folder) || name === folder;
  return Object.fromEntries(
    Object.entries(matrix).map(([place, cells]) => [
      place,
      Object.keys(cells).filter((name) => isOf(name) && isIn[cells[name]](file) && !isOnCheckedPage(place, name, file)),
    ]),
  );
};

/**
 * Whether tfjs's own WebGL programs take shapes as uniforms, as ours always do: software GPUs then have less to
 * compile. Not in the specs of WebGL itself, nor in those where tfjs 4.22 reads a tensor of more rows than a texture by
 * the program of a smaller one, which is wrong.
 */
const hasShapesAsUniforms = (file) => !/^webgl\/|\/(long_sums|moe_permute_block_aligned)_/.test(file);

/**
 * The backends of each page of a browser: no two pages compile the same shaders. What a browser has of the host is with
 * webgl where it is short, since a page takes half a minute to begin and end.
 *
 * The host comes first: tfjs-layers keeps the epsilon of the first backend of the page, and that of WebGL can be too
 * large for the specs of the host.
 */
const pagesOfBrowser = (place) =>
  ({
    Chromium: [['webgl'], ['webgpu'], ['cpu', 'wasm']],
    Firefox: [['cpu', 'wasm', 'webgl'], ['webgpu']],
    WebKit: [['cpu', 'wasm', 'webgl']],
  })[place];

module.exports = {backendsOfFile, deviceCheckBackends, hasShapesAsUniforms, pagesOfBrowser};
