/**
 * Which way imports may point in src/. Ops and kernels meet only in contract/: each can be read, replaced and dropped
 * from a bundle without the other. Imports of types count, unless a rule says otherwise.
 */
const entries =
  '^src/(index|tf|script|webgpu|(checkpoints|ops|graph|layers|models)/index|kernels/(index|cpu|webgl|webgpu))\\.ts$';
const registering = '^src/kernels/(index|cpu|webgl|webgpu|register)\\.ts$';
const contract = '^src/contract/';
const smoothOps = '^src/smooth_ops\\.ts$';
// What `main` of each tfjs package names.
const packageRoot = '^node_modules/@tensorflow/[^/]+/dist/tf[^/]*\\.node\\.js$';
const core = '^node_modules/@tensorflow/tfjs-core/';

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: 'no-circular',
      comment: 'A circle has no order to be read in, and none that is sure to run.',
      severity: 'error',
      from: {},
      to: {circular: true},
    },
    {
      name: 'no-orphans',
      comment: 'A module that no entry reaches is not in the package.',
      severity: 'error',
      from: {path: entries},
      to: {path: '^src/', pathNot: entries, reachable: false},
    },
    {
      name: 'ops-know-no-kernels',
      severity: 'error',
      from: {path: '^src/ops/'},
      to: {path: ['^src/kernels/', '^src/gradients/', registering]},
    },
    {
      name: 'kernels-know-no-ops',
      severity: 'error',
      from: {path: '^src/kernels/', pathNot: registering},
      to: {path: ['^src/ops/', '^src/arguments/', '^src/gradients/', registering]},
    },
    {
      name: 'a-kernel-folder-stands-alone',
      comment: 'It imports the contract, what kernels share, tfjs, and itself.',
      severity: 'error',
      from: {path: '^src/kernels/(moe_[^/]+)/', pathNot: '^src/kernels/moe_(fused_)?experts/'},
      to: {
        path: '^src/',
        pathNot: [contract, '^src/kernels/(shared|expert_sort|router_scores|weight_formats)/', '^src/kernels/$1/'],
      },
    },
    {
      name: 'experts-are-made-of-parts-of-the-grouped-matmul',
      severity: 'error',
      from: {path: '^src/kernels/(moe_fused_experts|moe_experts)/'},
      to: {
        path: '^src/',
        pathNot: [contract, '^src/kernels/(shared|weight_formats|moe_grouped_mat_mul|$1)/'],
      },
    },
    {
      name: 'what-kernels-have-in-common-knows-no-kernel',
      severity: 'error',
      from: {path: '^src/kernels/(shared|expert_sort|router_scores|weight_formats)/'},
      to: {path: '^src/', pathNot: [contract, '^src/kernels/shared/', '^src/kernels/$1/']},
    },
    {
      name: 'arguments-know-the-contract-alone',
      severity: 'error',
      from: {path: '^src/arguments/'},
      to: {path: '^src/', pathNot: [contract, '^src/arguments/']},
    },
    {
      name: 'checkpoints-know-no-layers',
      comment: 'They are read for fusedMoe as well as for the layer. Of kernels they take formats on the host.',
      severity: 'error',
      from: {path: '^src/checkpoints/'},
      to: {path: '^src/', pathNot: [contract, '^src/arguments/', '^src/kernels/weight_formats/', '^src/checkpoints/']},
    },
    {
      name: 'gradients-are-made-of-kernels-by-name',
      comment: 'So that they run on every backend, and are differentiable themselves.',
      severity: 'error',
      from: {path: '^src/gradients/'},
      to: {pathNot: [contract, smoothOps, '^src/gradients/', core]},
    },
    {
      name: 'graph-ops-are-made-of-ops',
      severity: 'error',
      from: {path: '^src/graph/'},
      to: {path: ['^src/kernels/', '^src/gradients/', registering]},
    },
    {
      name: 'layers-are-made-of-ops',
      severity: 'error',
      from: {path: '^src/layers/'},
      to: {path: ['^src/kernels/', '^src/gradients/', registering]},
    },
    {
      name: 'models-are-made-of-layers-and-checkpoints',
      severity: 'error',
      from: {path: '^src/models/'},
      to: {path: '^src/', pathNot: [contract, '^src/(arguments|checkpoints|layers|models)/']},
    },
    {
      name: 'only-models-know-models',
      severity: 'error',
      from: {path: '^src/', pathNot: '^src/(models/|tf\\.ts$|script\\.ts$)'},
      to: {path: '^src/models/'},
    },
    {
      name: 'only-entries-of-layers-import-tfjs-layers',
      comment: 'The others take it as an argument: tfjs-moe/tf and the script build have it from all of tfjs.',
      severity: 'error',
      from: {pathNot: '^src/(layers|models)/index\\.ts$'},
      to: {path: '^node_modules/@tensorflow/tfjs-layers/', dependencyTypesNot: ['type-only']},
    },
    {
      name: 'the-contract-is-the-bottom',
      severity: 'error',
      from: {path: contract},
      to: {path: '^src/', pathNot: contract},
    },
    {
      name: 'smooth-ops-are-made-of-tfjs',
      severity: 'error',
      from: {path: smoothOps},
      to: {path: '^src/'},
    },
    {
      name: 'only-entries-register',
      severity: 'error',
      from: {pathNot: ['^src/index\\.ts$', registering]},
      to: {path: registering},
    },
    {
      name: 'tfjs-only-by-package-root',
      comment: 'Deep imports do not load in Node; `declare module` of one is a type and fine.',
      severity: 'error',
      from: {},
      to: {path: '@tensorflow/[^/]+/', pathNot: packageRoot, dependencyTypesNot: ['type-only']},
    },
    {
      name: 'backends-only-as-types',
      comment: 'A kernel gets its backend as an argument; an import would load it for those who do not use it.',
      severity: 'error',
      // The entry whose purpose is that backend.
      from: {pathNot: '^src/webgpu\\.ts$'},
      to: {path: '@tensorflow/tfjs-backend-', dependencyTypesNot: ['type-only']},
    },
    {
      name: 'only-tf-imports-all-of-tfjs',
      comment: 'The union package is an optional peer.',
      severity: 'error',
      from: {pathNot: '^src/tf\\.ts$'},
      to: {path: '^node_modules/@tensorflow/tfjs/'},
    },
    {
      name: 'resolves',
      severity: 'error',
      from: {},
      to: {couldNotResolve: true},
    },
  ],
  options: {
    doNotFollow: {path: 'node_modules'},
    tsConfig: {fileName: 'tsconfig.json'},
    tsPreCompilationDeps: true,
    detectJSDocImports: false,
    // A linked node_modules is a node_modules.
    preserveSymlinks: true,
  },
};
