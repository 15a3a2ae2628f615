/**
 * onnxruntime-web's op QMoE on WebGPU: experts of int4 codes in blocks of 32 with float32 scales, float32 tokens. All
 * of its inputs and outputs stay on the GPU.
 */
import * as ort from 'onnxruntime-web/jspi';
import * as tf from '../src/tf';
import {onnxModel, type OnnxTensor} from './onnx_model';
import type {Shape} from './shapes';

const BLOCK = 32;
/** Values of an input repeat after so many bytes, so that the host makes few of them. */
const PERIOD_BYTES = 2 ** 16;
/** Calls in a row have other logits, so that calls of few tokens read weights that no cache holds. */
export const NUM_ROUTINGS = 8;

/** The tensors that QMoE takes, in its order; int4 codes are two in a byte. */
const inputsOf = ({T, H, I, E}: Shape): OnnxTensor[] => [
  {name: 'x', type: 'float32', shape: [T, H]},
  {name: 'logits', type: 'float32', shape: [T, E]},
  {name: 'w1', type: 'uint8', shape: [E, 2 * I, H / 2]},
  {name: 'w1Scales', type: 'float32', shape: [E, 2 * I, H / BLOCK]},
  {name: 'w2', type: 'uint8', shape: [E, H, I / 2]},
  {name: 'w2Scales', type: 'float32', shape: [E, H, I / BLOCK]},
];

/** The model whose only node is QMoE. swiglu_fusion 1 means gates and ups in turn. */
function qmoeModel(shape: Shape): Uint8Array {
  const node = {
    domain: 'com.microsoft',
    opType: 'QMoE',
    // No biases.
    inputs: ['x', 'logits', 'w1', 'w1Scales', '', 'w2', 'w2Scales'],
    outputs: ['y'],
    attributes: {
      k: shape.K,
      activation_type: 'swiglu',
      activation_alpha: {float: 1.702},
      activation_beta: {float: 1},
      swiglu_limit: {float: 7},
      swiglu_fusion: 1,
      normalize_routing_weights: 1,
      expert_weight_bits: 4,
      block_size: BLOCK,
    },
  };
  return onnxModel(node, inputsOf(shape), [{name: 'y', type: 'float32', shape: [shape.T, shape.H]}]);
}

/** A whole number below 2^32 that looks random. */
function hash(value: number): number {
  const mixed = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  return Math.imul(mixed ^ (mixed >>> 12), 0x297a2d39) >>> 0;
}

/** One period of an input: codes of any bits, scales at which sums stay near 1, tokens and logits of -1 .. 1. */
function periodOf({name, type, shape}: OnnxTensor, routing: number): Uint8Array | Float32Array {
  const size = tf.util.sizeFromShape(shape);
  const random = (i: number) => hash(i + 1 + routing * PERIOD_BYTES) / 2 ** 32;
  if (type === 'uint8') {
    return Uint8Array.from({length: Math.min(size, PERIOD_BYTES)}, (_, i) => 256 * random(i));
  }
  const numIn = shape[shape.length - 1] * BLOCK;
  const valueOf = name.endsWith('Scales')
    ? (i: number) => (0.5 + random(i)) / (4 * Math.sqrt(numIn))
    : (i: number) => 2 * random(i) - 1;
  return Float32Array.from({length: Math.min(size, PERIOD_BYTES / 4)}, (_, i) => valueOf(i));
}

export class Qmoe {
  private readonly feeds: Record<string, ort.Tensor>;
  private readonly logits: ort.Tensor[];
  private readonly buffers: GPUBuffer[] = [];

  private constructor(
    private readonly session: ort.InferenceSession,
    readonly device: GPUDevice,
    private readonly shape: Shape,
  ) {
    this.feeds = Object.fromEntries(inputsOf(shape).map((input) => [input.name, this.onGpu(input, 0)]));
    const [, logits] = inputsOf(shape);
    this.logits = Array.from({length: NUM_ROUTINGS}, (_, routing) => this.onGpu(logits, routing));
  }

  /** `wasm` is the address of onnxruntime's WebAssembly. */
  static async load(shape: Shape, wasm: string): Promise<Qmoe> {
    ort.env.wasm.wasmPaths = {wasm};
    ort.env.wasm.numThreads = 1;
    const session = await ort.InferenceSession.create(qmoeModel(shape), {
      executionProviders: ['webgpu'],
      preferredOutputLocation: 'gpu-buffer',
      // On the CPU it would be no peer.
      extra: {session: {disable_cpu_ep_fallback: '1'}},
    });
    return new Qmoe(session, await ort.env.webgpu.device, shape);
  }

  private onGpu(input: OnnxTensor, routing: number): ort.Tensor {
    const {device} = this;
    const period = periodOf(input, routing);
    const size = tf.util.sizeFromShape(input.shape) * period.BYTES_PER_ELEMENT;
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const buffer = device.createBuffer({size, usage});
    for (let at = 0; at < size; at += period.byteLength) {
      device.queue.writeBuffer(buffer, at, period.buffer, 0, Math.min(period.byteLength, size - at));
    }
    this.buffers.push(buffer);
    return ort.Tensor.fromGpuBuffer(buffer, {dataType: input.type, dims: input.shape});
  }

  async run(routing: number): Promise<ort.Tensor> {
    return (await this.session.run({...this.feeds, logits: this.logits[routing]})).y;
  }

  /** What `run(0)` gives, by fusedMoe in float32 with the same weights. For small layers. */
  byFusedMoe(): tf.Tensor2D {
    const [x, logits, w1, w1Scales, w2, w2Scales] = inputsOf(this.shape).map((input) => ({
      period: periodOf(input, 0),
      shape: input.shape,
    }));
    const tensor = ({period, shape}: typeof x) => tf.tensor(period, shape);
    // (code - 8) * scale, the low half of a byte first.
    const dequantized = (codes: typeof x, scales: typeof x) => {
      const [numExperts, numRows, numBytes] = codes.shape;
      const values = Float32Array.from({length: numExperts * numRows * numBytes * 2}, (_, i) => {
        const code = (codes.period[(i >> 1) % codes.period.length] >> (4 * (i & 1))) & 15;
        return (code - 8) * scales.period[Math.floor(i / BLOCK) % scales.period.length];
      });
      return tf.tensor3d(values, [numExperts, numRows, numBytes * 2]);
    };
    return tf.tidy(() =>
      tf.fusedMoe(
        tensor(x) as tf.Tensor2D,
        dequantized(w1, w1Scales),
        dequantized(w2, w2Scales),
        tensor(logits) as tf.Tensor2D,
        this.shape.K,
        {activation: 'swigluOai'},
      ),
    );
  }

  async release(): Promise<void> {
    await this.session.release();
    this.buffers.forEach((buffer) => buffer.destroy());
  }
}
