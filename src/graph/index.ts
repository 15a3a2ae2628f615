/**
 * The ops of this package in GraphModels, registered only by a call of registerMoeGraphOps: `tfjs-moe/graph`.
 *
 * @module tfjs-moe/graph
 */
import '../index';

export type {MoeGraphOpRegistry} from './graph_ops';
export {moeGraphModel, type MoeGraphModelOptions, type MoeGraphModelWeights} from './moe_graph_model';
export {registerMoeGraphOps} from './register_moe_graph_ops';
