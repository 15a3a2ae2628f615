import {registerOp} from '@tensorflow/tfjs-converter';
import {type MoeGraphOpRegistry, registerGraphOps} from './graph_ops';

/**
 * Registers the ops of this package with tf.loadGraphModel, so that a GraphModel can have them as nodes. Call it before
 * the model is loaded. Calling it again changes nothing.
 *
 * ```js
 * tf.registerMoeGraphOps();
 * const model = await tf.loadGraphModel(tf.io.fromMemory({
 *   modelTopology: {
 *     versions: {producer: 1},
 *     node: [
 *       {
 *         name: 'x', op: 'Placeholder',
 *         attr: {dtype: {type: 'DT_FLOAT'}, shape: {shape: {dim: [{size: '-1'}, {size: '2'}]}}},
 *       },
 *       {
 *         name: 'ids', op: 'Placeholder',
 *         attr: {dtype: {type: 'DT_INT32'}, shape: {shape: {dim: [{size: '-1'}, {size: '1'}]}}},
 *       },
 *       {name: 'permuted', op: 'MoePermute', input: ['x', 'ids'], attr: {num_experts: {i: '3'}}},
 *     ],
 *   },
 *   weightSpecs: [],
 *   weightData: new ArrayBuffer(0),
 * }));
 * const inputs = {x: tf.tensor2d([[1, 2], [3, 4]]), ids: tf.tensor2d([[2], [0]], [2, 1], 'int32')};
 * const [rows, offsets] = [model.execute(inputs, ['permuted:0', 'permuted:1'])].flat();
 * await rows.array(); // => [[3, 4], [1, 2]]
 * await offsets.array(); // => [0, 1, 1, 2]
 * ```
 *
 * In MoeTopK, FusedExperts and FusedMoe, tokens may have several axes, such as hidden_states [B, T, H].
 *
 * Inputs are in the order of the list below. An input in [] is optional: it is in its place if its boolean attr
 * `has_<name>` is true, such as `has_expert_map`. Attrs are `int`, `bool`, `float`, and strings `s` (base64 in the JSON
 * of a graph); strings are in snake_case, because tfjs lower-cases them. An attr marked ! is required; any other attr
 * has the op's default if it is left out.
 *
 * - MoePermute(hidden_states, topk_ids, [a1q_scale], [expert_map])
 *   attrs: num_experts int!, num_local_experts int, align_block_size int, fill_invalid_expert int
 *   outputs: 0 permuted_hidden_states, 1 expert_first_token_offset, 2 inv_permuted_idx, 3 m_indices, 4 permuted_idx,
 *   5 a1q_scale, if given
 * - MoeUnpermute(permuted_hidden_states, topk_weights, inv_permuted_idx, [expert_first_token_offset])
 *   output: 0
 * - MoeAlignBlockSize(topk_ids, [expert_map])
 *   attrs: block_size int!, num_experts int!, pad_sorted_ids bool, ignore_invalid_experts bool
 *   outputs: 0 sorted_token_ids, 1 expert_ids, 2 num_tokens_post_pad
 * - MoeTopK(router_logits, [score_correction_bias])
 *   attrs: topk int!, scoring s, renormalize bool, num_expert_groups int, topk_groups int,
 *   sparsemixer_jitter float, routed_scaling_factor float
 *   outputs: 0 topk_weights, 1 topk_ids
 * - MoeGroupedMatMul(x, weights, expert_first_token_offset, [bias], [weights_scales], [weights_offsets])
 *   attrs: weight_format s, activation s, gated bool, gate_up s, swiglu_alpha float, swiglu_limit float,
 *   weights_quantized_format s, weights_group_size int, weights_scale_format s, weights_zero_point int
 *   output: 0
 * - FusedExperts(hidden_states, w1, w2, topk_weights, topk_ids, [w1_bias], [w2_bias], [expert_map], [shared_w1],
 *   [shared_w2], [shared_gate], [w1_scales], [w1_offsets], [w2_scales], [w2_offsets])
 *   attrs: as MoeGroupedMatMul, with w1_… and w2_… in place of weights_…, and num_zero_experts int,
 *   apply_router_weight_on_input bool
 *   output: 0
 * - FusedMoe(hidden_states, w1, w2, router_logits, [score_correction_bias], [w1_bias], [w2_bias], [expert_map],
 *   [shared_w1], [shared_w2], [shared_gate], [w1_scales], [w1_offsets], [w2_scales], [w2_offsets])
 *   attrs: as MoeTopK and as FusedExperts
 *   outputs: 0 hidden_states, 1 topk_weights, 2 topk_ids
 * - MoeSum(x)
 *   output: 0
 *
 * scoring: softmax, softmax_after_topk, sigmoid, sqrt_softplus. activation: linear, relu, relu2, silu, swish, gelu,
 * gelu_tanh, gelu_new, swiglu_oai. weight_format: out_in, in_out. gate_up: concatenated, interleaved; the default for
 * swiglu_oai is interleaved.
 *
 * Weights are float32, or quantized if they have a quantized_format: int4, int8, fp4, float8, float16 or bfloat16. Then
 * the input has the codes, int32 [L, D, C * bits / 32], and the other inputs and attrs are the fields of
 * QuantizedWeights by their names. scale_format: float32, float16, bfloat16, e8m0.
 *
 * Refer to an output by its number, such as `permuted:1`: tfjs takes `permuted:offsets:0` for output 0. If a signature
 * has several outputs of one node, give each an Identity node: tfjs would keep only one of them otherwise. Control
 * inputs (`^name`) count as inputs in tfjs and are an error. The attr T and attrs whose names begin with _ belong to
 * TensorFlow and are not read.
 *
 * execute, executeAsync and predict run the ops. Nothing is read back, and no tensor is left over.
 *
 * @param tf  The module that has the `registerOp` of the tfjs that loads the model: @tensorflow/tfjs or its converter,
 *     @tensorflow/tfjs-converter. Default: the installed converter; in `tfjs-moe/tf`, that entry's @tensorflow/tfjs.
 *
 * @throws if `tf` has no registerOp. A node whose attrs or inputs do not fit throws when it is executed; the error
 *     names node, op and attr.
 */
export function registerMoeGraphOps(tf?: MoeGraphOpRegistry | null): void {
  registerGraphOps(tf ?? {registerOp});
}
