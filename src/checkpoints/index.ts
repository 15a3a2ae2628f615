/**
 * Hugging Face checkpoints, for fusedMoe and for the layer: `tfjs-moe/checkpoints`.
 *
 * @module tfjs-moe/checkpoints
 */
export type {LoadMoeCheckpointOptions, MoeCheckpointSource} from './block';
export type {MoeModelConfig} from './config_reader';
export {type MoeLayerConfig, moeLayerConfig} from './moe_layer_config';
export {loadMoeCheckpoint} from './load_moe_checkpoint';
export {moeExpertFormat} from './moe_expert_format';
export type {LayerExpertFormat, MoeWeightsLayer} from './moe_weights_layer';
export {
  type MoeCheckpoint,
  moeCheckpoint,
  type MoeCheckpointExperts,
  type MoeCheckpointOptions,
} from './moe_checkpoint';
export type {ExpertFormatOptions} from './expert_encoding';
export {type CheckpointBytes, type CheckpointFile, type SliceableFile} from './files/checkpoint_file';
export {type GgufHeader, readGguf} from './files/gguf';
export {remoteCheckpointFile, type RemoteCheckpointFileOptions} from './files/remote_checkpoint_file';
export {type CheckpointTensor, type CheckpointTensors, readSafetensors, safetensorsValues} from './files/safetensors';
export {type FloatDtype, writeSafetensors} from './files/write_safetensors';
export {moeCheckpointFiles, type MoeCheckpointFilesOptions} from './moe_checkpoint_files';
