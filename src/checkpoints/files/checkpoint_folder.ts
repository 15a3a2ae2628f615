/** The files of a checkpoint: config.json, and tensors in one safetensors file or in several with an index. */
import type {MoeModelConfig} from '../config_reader';
import {numBytesOf, type Reading} from './checkpoint_file';
import type {CheckpointTensors} from './safetensors';
import {type FloatDtype, safetensorsBlob} from './write_safetensors';

const DEFAULT_MAX_SHARD_BYTES = 5e9;

/** How transformers names dtypes in config.json. */
const configDtypes: Record<FloatDtype, string> = {F32: 'float32', F16: 'float16', BF16: 'bfloat16'};

/** Blobs by file name. The config is written without quantization_config, and with `dtype` if that is given. */
export async function checkpointFolder(
  tensors: CheckpointTensors,
  config: MoeModelConfig,
  {dtype, maxShardBytes}: {dtype?: FloatDtype | null; maxShardBytes?: number | null},
  reading: Reading,
): Promise<{[fileName: string]: Blob}> {
  return {
    'config.json': jsonBlob(configText(writtenConfig(config, dtype))),
    ...(await shards(tensors, maxShardBytes ?? DEFAULT_MAX_SHARD_BYTES, reading)),
  };
}

/** Parts of a multimodal model may have a quantization and a dtype of their own. */
function writtenConfig(
  {quantization_config: _, text_config: nested, ...config}: MoeModelConfig,
  dtype: FloatDtype | null | undefined,
): MoeModelConfig {
  const isNested = typeof nested === 'object' && nested !== null;
  const written = {
    ...config,
    ...(nested !== undefined && {text_config: isNested ? writtenConfig(nested as MoeModelConfig, dtype) : nested}),
  };
  if (dtype == null) {
    return written;
  }
  // Older files have another name for it.
  const keys = ['dtype', 'torch_dtype'].filter((key) => config[key] != null);
  const named = (keys.length > 0 ? keys : ['dtype']).map((key) => [key, configDtypes[dtype]]);
  return {...written, ...(Object.fromEntries(named) as MoeModelConfig)};
}

const textOf = (value: object): string => `${JSON.stringify(value, null, 2)}\n`;
const jsonBlob = (text: string): Blob => new Blob([text], {type: 'application/json'});

/** What transformers 5 takes as a float alone: it refuses a config with 0 in the place of 0.0. */
const floatKeys = [
  ...['attention_dropout', 'attention_invalid_logits_value', 'attention_logit_cap', 'attention_value_scale'],
  ...['attn_scale', 'aux_loss_coef', 'clip_qkv', 'emb_pdrop', 'final_logit_softcapping', 'gradient_clipping', 'hc_eps'],
  ...['initializer_range', 'input_jitter_noise', 'layer_norm_eps', 'layer_norm_epsilon', 'logit_scale'],
  ...['moe_loss_weight', 'moe_norm_min', 'moe_normalize_expert_weights', 'moe_routed_scaling_factor'],
  ...['moe_router_logit_softcapping', 'norm_eps', 'partial_rotary_factor', 'resid_pdrop', 'residual_weight'],
  ...['rms_norm_eps', 'route_scale', 'routed_scaling_factor', 'router_aux_loss_coef', 'router_jitter_noise'],
  ...['router_scaling_factor', 'swiglu_limit', 'time_step_floor', 'time_step_max', 'time_step_min'],
];

/** JSON has one kind of number for JavaScript and two for Python. */
function configText(config: MoeModelConfig): string {
  const integers = new RegExp(`^( *"(?:${floatKeys.join('|')})": -?\\d+)(,?)$`, 'gm');
  return textOf(config).replace(integers, '$1.0$2');
}

/** One file, or several and their index. */
async function shards(
  tensors: CheckpointTensors,
  maxShardBytes: number,
  reading: Reading,
): Promise<{[fileName: string]: Blob}> {
  const parts: CheckpointTensors[] = [];
  let room = 0;
  let total = 0;
  for (const [name, tensor] of tensors) {
    const size = numBytesOf(tensor.bytes);
    if (parts.length === 0 || size > room) {
      parts.push(new Map());
      room = maxShardBytes;
    }
    parts[parts.length - 1].set(name, tensor);
    room -= size;
    total += size;
  }
  const metadata = {format: 'pt'};
  if (parts.length === 1) {
    return {'model.safetensors': await safetensorsBlob(tensors, metadata, reading)};
  }
  const number = (n: number) => String(n).padStart(5, '0');
  const files: {[fileName: string]: Blob} = {};
  const weightMap: {[name: string]: string} = {};
  for (const [p, part] of parts.entries()) {
    const fileName = `model-${number(p + 1)}-of-${number(parts.length)}.safetensors`;
    files[fileName] = await safetensorsBlob(part, metadata, reading);
    for (const name of part.keys()) {
      Object.defineProperty(weightMap, name, {value: fileName, enumerable: true});
    }
  }
  files['model.safetensors.index.json'] = jsonBlob(textOf({metadata: {total_size: total}, weight_map: weightMap}));
  return files;
}
