/** The models of decoding.ts in core ops of tfjs alone, as one writes them without this package. */
import type {MoeModelConfig} from '../src/checkpoints/config_reader';
import * as tf from '../src/tf';

type Block = Record<'norm' | 'query' | 'key' | 'value' | 'output' | 'expertsNorm' | 'router' | 'w1' | 'w2', tf.Tensor>;
type Cache = {keys: tf.Tensor3D; values: tf.Tensor3D};

export class CoreOpsModel {
  private readonly blocks: Block[];
  private readonly embeddings: tf.Tensor2D;
  private readonly norm: tf.Tensor;
  private caches: Cache[];
  private numPositions: number;
  private readonly numHeads: number;
  private readonly numKeyHeads: number;
  private readonly headDim: number;
  private readonly numExperts: number;
  private readonly topk: number;

  /** Weights of one value, and a cache of `numPositions` positions. */
  constructor(config: MoeModelConfig, numPositions: number) {
    const sizes = config as Record<string, number>;
    const hiddenSize = sizes.hidden_size;
    const expertSize = sizes.intermediate_size;
    this.numHeads = sizes.num_attention_heads;
    this.numKeyHeads = sizes.num_key_value_heads;
    this.headDim = hiddenSize / this.numHeads;
    this.numExperts = sizes.num_local_experts ?? sizes.num_experts;
    this.topk = sizes.num_experts_per_tok;
    this.numPositions = numPositions;
    const {numHeads, numKeyHeads, headDim, numExperts} = this;
    const weight = (...shape: number[]) => tf.fill(shape, 0.01);
    this.blocks = Array.from({length: sizes.num_hidden_layers}, () => ({
      norm: weight(hiddenSize),
      query: weight(hiddenSize, numHeads * headDim),
      key: weight(hiddenSize, numKeyHeads * headDim),
      value: weight(hiddenSize, numKeyHeads * headDim),
      output: weight(numHeads * headDim, hiddenSize),
      expertsNorm: weight(hiddenSize),
      router: weight(hiddenSize, numExperts),
      w1: weight(numExperts, hiddenSize, 2 * expertSize),
      w2: weight(numExperts, expertSize, hiddenSize),
    }));
    this.embeddings = weight(sizes.vocab_size, hiddenSize) as tf.Tensor2D;
    this.norm = weight(hiddenSize);
    this.caches = this.blocks.map(() => ({
      keys: tf.ones<tf.Rank.R3>([numKeyHeads, numPositions, headDim]),
      values: tf.ones<tf.Rank.R3>([numKeyHeads, numPositions, headDim]),
    }));
  }

  /** The likeliest id after `id`, as a tensor. */
  next(id: number): tf.Tensor {
    const before = this.caches;
    const [chosen, ...caches] = tf.tidy(() => {
      let states = tf.gather(this.embeddings, tf.tensor1d([id], 'int32'));
      const after: Cache[] = [];
      this.blocks.forEach((block, b) => {
        const attended = this.attention(this.normalized(states, block.norm), block, before[b]);
        after.push(attended.cache);
        states = tf.add(states, attended.output);
        states = tf.add(states, this.experts(this.normalized(states, block.expertsNorm), block));
      });
      const logits = tf.matMul(this.normalized(states, this.norm) as tf.Tensor2D, this.embeddings, false, true);
      return [tf.argMax(logits, 1), ...after.flatMap(({keys, values}) => [keys, values])];
    });
    tf.dispose(before);
    this.caches = this.blocks.map((_, b) => ({
      keys: caches[2 * b] as tf.Tensor3D,
      values: caches[2 * b + 1] as tf.Tensor3D,
    }));
    this.numPositions++;
    return chosen;
  }

  dispose(): void {
    tf.dispose([this.blocks, this.caches, this.embeddings, this.norm]);
  }

  private normalized(x: tf.Tensor, gamma: tf.Tensor): tf.Tensor {
    return tf.mul(tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), 1e-6))), gamma);
  }

  private rotated(x: tf.Tensor): tf.Tensor {
    const pairs = tf.range(0, this.headDim / 2);
    const angles = tf.mul(tf.pow(10_000, tf.mul(pairs, -2 / this.headDim)), this.numPositions);
    const [cos, sin] = [tf.cos(angles), tf.sin(angles)];
    const [a, b] = tf.split(x, 2, -1);
    return tf.concat([tf.sub(tf.mul(a, cos), tf.mul(b, sin)), tf.add(tf.mul(b, cos), tf.mul(a, sin))], -1);
  }

  private attention(x: tf.Tensor, block: Block, cache: Cache): {output: tf.Tensor; cache: Cache} {
    const {numHeads, numKeyHeads, headDim} = this;
    const heads = (name: 'query' | 'key' | 'value', count: number) =>
      tf.reshape(tf.matMul(x as tf.Tensor2D, block[name] as tf.Tensor2D), [count, 1, headDim]);
    const keys = tf.concat([cache.keys, this.rotated(heads('key', numKeyHeads)) as tf.Tensor3D], 1);
    const values = tf.concat([cache.values, heads('value', numKeyHeads) as tf.Tensor3D], 1);
    const queries = tf.reshape(this.rotated(heads('query', numHeads)), [numKeyHeads, numHeads / numKeyHeads, headDim]);
    const weights = tf.softmax(tf.mul(tf.matMul(queries, keys, false, true), headDim ** -0.5));
    const sums = tf.reshape(tf.matMul(weights, values), [1, numHeads * headDim]);
    return {output: tf.matMul(sums as tf.Tensor2D, block.output as tf.Tensor2D), cache: {keys, values}};
  }

  /** Only the chosen experts are read. */
  private experts(x: tf.Tensor, block: Block): tf.Tensor {
    const {topk} = this;
    const chosen = tf.topk(tf.softmax(tf.matMul(x as tf.Tensor2D, block.router as tf.Tensor2D)), topk);
    const ids = tf.reshape(chosen.indices, [topk]) as tf.Tensor1D;
    const shares = tf.reshape(tf.div(chosen.values, tf.sum(chosen.values)), [topk, 1, 1]);
    const inputs = tf.tile(tf.expandDims(x), [topk, 1, 1]) as tf.Tensor3D;
    const [gate, up] = tf.split(tf.matMul(inputs, tf.gather(block.w1, ids) as tf.Tensor3D), 2, -1);
    const hidden = tf.mul(tf.mul(gate, tf.sigmoid(gate)), up) as tf.Tensor3D;
    const outputs = tf.matMul(hidden, tf.gather(block.w2, ids) as tf.Tensor3D);
    return tf.sum(tf.mul(outputs, shares), 0);
  }
}
