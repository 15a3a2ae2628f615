/**
 * The mixture-of-experts blocks of Hugging Face checkpoints, by the `model_type` of config.json: the names and layouts
 * of their tensors, and how their routers choose. The source is huggingface/transformers: the modeling and
 * configuration files (src/transformers/models/<model_type>/), and conversion_mapping.py, which stacks the tensors of
 * single experts.
 */
import {afmoe} from './afmoe';
import {ariaText} from './aria_text';
import {cohere2Moe} from './cohere2_moe';
import {dbrx} from './dbrx';
import {deepseekV2} from './deepseek_v2';
import {deepseekV3, dots1, glm4Moe, glm4MoeLite, mimoV2Flash} from './deepseek_v3';
import {deepseekV4} from './deepseek_v4';
import {ernie4x5Moe} from './ernie4_5_moe';
import {exaoneMoe} from './exaone_moe';
import {gptOss} from './gpt_oss';
import {graniteMoe, graniteMoeHybrid, graniteMoeShared} from './granitemoe';
import {hunyuanV1Moe} from './hunyuan_v1_moe';
import {hyV3} from './hy_v3';
import {jamba} from './jamba';
import {jetMoe} from './jetmoe';
import {kimiLinear} from './kimi_linear';
import {laguna} from './laguna';
import type {LayoutOf} from './layout';
import {lfm2Moe} from './lfm2_moe';
import {llama4Text} from './llama4';
import {longcatFlash} from './longcat_flash';
import {mistral4} from './mistral4';
import {minimax, minimaxM2, mixtral, phimoe} from './mixtral';
import {nemotronH} from './nemotron_h';
import {mellum, olmoe, qwen2Moe, qwen3Moe, qwen3Next, qwen3VlMoe, qwen3x5Moe} from './qwen_moe';

export const families: {readonly [modelType: string]: LayoutOf} = {
  afmoe,
  aria_text: ariaText,
  cohere2_moe: cohere2Moe,
  dbrx,
  deepseek_v2: deepseekV2,
  deepseek_v3: deepseekV3,
  deepseek_v32: deepseekV3,
  deepseek_v4: deepseekV4,
  dots1,
  ernie4_5_moe: ernie4x5Moe,
  exaone_moe: exaoneMoe,
  flex_olmo: olmoe,
  glm4_moe: glm4Moe,
  glm4_moe_lite: glm4MoeLite,
  gpt_oss: gptOss,
  granitemoe: graniteMoe,
  granitemoe_swa: graniteMoeShared,
  granitemoehybrid: graniteMoeHybrid,
  granitemoeshared: graniteMoeShared,
  hunyuan_v1_moe: hunyuanV1Moe,
  hy_v3: hyV3,
  jamba,
  jetmoe: jetMoe,
  kimi_linear: kimiLinear,
  laguna,
  lfm2_moe: lfm2Moe,
  llama4_text: llama4Text,
  longcat_flash: longcatFlash,
  mellum,
  mimo_v2_flash: mimoV2Flash,
  minimax,
  minimax_m2: minimaxM2,
  mistral4,
  mixtral,
  nemotron_h: nemotronH,
  olmoe,
  phimoe,
  qwen2_moe: qwen2Moe,
  qwen3_5_moe_text: qwen3x5Moe,
  qwen3_moe: qwen3Moe,
  qwen3_next: qwen3Next,
  qwen3_vl_moe_text: qwen3VlMoe,
  solar_open: glm4Moe,
};

/** Families that are known, and what their blocks need that these ops lack. */
export const refusedFamilies: {readonly [modelType: string]: string} = {
  gemma4_text: 'its router normalizes its input by RMSNorm and scales each expert, and its experts have another input',
};

/** How the names of a layer's tensors begin, up to its number, for families other than Llama's kin. */
export const layerPaths: {readonly [modelType: string]: readonly string[]} = {
  dbrx: ['transformer.blocks.'],
  deepseek_v4: ['model.layers.', 'layers.'],
  nemotron_h: ['backbone.layers.', 'model.layers.'],
};
