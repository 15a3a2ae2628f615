/** All of @tensorflow/tfjs and all of this package in one namespace: `import * as tf from 'tfjs-moe/tf'`. */
import {registerOp} from '@tensorflow/tfjs';
import {type MoeGraphOpRegistry, registerGraphOps} from './graph/graph_ops';

export * from '@tensorflow/tfjs';
export * from './index';
export type {MoeGraphOpRegistry} from './graph/graph_ops';
export {moeGraphModel, type MoeGraphModelOptions, type MoeGraphModelWeights} from './graph/moe_graph_model';

/**
 * registerMoeGraphOps of `tfjs-moe/graph`, for this tfjs where no other is given. Not that function itself: it imports
 * @tensorflow/tfjs-converter, which a strict package manager gives only to those who ask for it.
 */
export function registerMoeGraphOps(tf?: MoeGraphOpRegistry | null): void {
  registerGraphOps(tf ?? {registerOp});
}
