import {registerOp} from '@tensorflow/tfjs-converter';
import {type MoeGraphOpRegistry, registerGraphOps} from './graph_ops';

/**
 * Makes the ops of this package known to tf.loadGraphModel, so that a GraphModel can have them as nodes. Call it before
 * the model is loaded; calling it again changes nothing.
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
 * In MoeTopK, FusedExperts and FusedMoe, tokens may be along several axes, such as hidden_states [B, T, H].
 *
 * Inputs are in the order given. One in [] is optional: it is there, in its place, where the boolean attr `has_<name>`
 * is true, such as `has_expert_map`. Attrs: `int`, `bool`, `float`, and strings `s` (base64 in the JSON of a graph) in
 * snake_case, as tfjs lower-cases them. One marked ! must be given; any other that is left out has the op's default.
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
 *   attrs: topk int!, scoring s, renormalize bool, num_expert_groups int, topk_groups int, routed_scaling_factor float
 *   outputs: 0 topk_weights, 1 topk_ids
 * - MoeGroupedMatMul(x, weights, expert_first_token_offset, [bias])
 *   attrs: weight_format s, activation s, gated bool, gate_up s, swiglu_alpha float, swiglu_limit float
 *   output: 0
 * - FusedExperts(hidden_states, w1, w2, topk_weights, topk_ids, [w1_bias], [w2_bias], [expert_map], [shared_w1],
 *   [shared_w2], [shared_gate])
 *   attrs: those of MoeGroupedMatMul, and apply_router_weight_on_input bool
 *   output: 0
 * - FusedMoe(hidden_states, w1, w2, router_logits, [score_correction_bias], [w1_bias], [w2_bias], [expert_map],
 *   [shared_w1], [shared_w2], [shared_gate])
 *   attrs: those of MoeTopK and of FusedExperts
 *   outputs: 0 hidden_states, 1 topk_weights, 2 topk_ids
 * - MoeSum(x)
 *   output: 0
 *
 * scoring: softmax, softmax_after_topk, sigmoid, sqrt_softplus. activation: linear, relu, relu2, silu, swish, gelu,
 * gelu_tanh, gelu_new, swiglu_oai. weight_format: out_in, in_out. gate_up: concatenated, interleaved; the second is the
 * default of swiglu_oai.
 *
 * An output is referred to by its number, `permuted:1`: tfjs takes `permuted:offsets:0` for output 0. A signature that
 * has several outputs of one node needs an Identity node for each, of which tfjs would else keep one. Control inputs
 * (`^name`) count as inputs in tfjs and are an error. The attr T and those that begin with _ are TensorFlow's own and
 * are not read.
 *
 * Executed by execute, executeAsync and predict; nothing is read back, and nothing is left over.
 *
 * @param tf  What has the `registerOp` of the tfjs that loads the model: @tensorflow/tfjs, @tensorflow/tfjs-converter.
 *     Default: the installed @tensorflow/tfjs-converter; in `tfjs-moe/tf`, its own @tensorflow/tfjs.
 *
 * @throws if `tf` has no registerOp. A node whose attrs or inputs do not fit is an error when it is executed, which
 *     names node, op and attr.
 */
export function registerMoeGraphOps(tf?: MoeGraphOpRegistry | null): void {
  registerGraphOps(tf ?? {registerOp});
}
