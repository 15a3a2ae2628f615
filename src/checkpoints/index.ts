/** Hugging Face checkpoints, for fusedMoe and for the layer: `tfjs-moe/checkpoints`. */
export type {LoadMoeCheckpointOptions, MoeCheckpointFiles} from './block';
export type {MoeModelConfig} from './config_reader';
export {type MoeLayerConfig, moeLayerConfig} from './moe_layer_config';
export {loadMoeCheckpoint, type MoeWeightsLayer} from './load_moe_checkpoint';
export {type MoeCheckpoint, moeCheckpoint, type MoeCheckpointOptions} from './moe_checkpoint';
export {
  readSafetensors,
  type SafetensorsBytes,
  type SafetensorsTensor,
  type SafetensorsTensors,
  safetensorsValues,
} from './safetensors';
