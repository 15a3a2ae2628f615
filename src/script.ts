/**
 * The script-tag build, `dist/tf-moe.min.js`. Its exports are added to the global `tf`, which is also what every
 * import of tfjs stands for there; scripts/build.mjs says how, and puts a check that `tf` is loaded before it.
 */
export * from './index';
export {moeGraphModel, registerMoeGraphOps} from './graph/index';
