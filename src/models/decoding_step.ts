/**
 * The step of one position, which decoding repeats. Where the backend can record it, a token takes the launches of the
 * step and none of the JavaScript of its layers and ops.
 */
import {
  clone,
  dispose,
  getBackend,
  keep,
  type Tensor,
  type Tensor2D,
  tensor1d,
  tensor2d,
  tidy,
} from '@tensorflow/tfjs-core';
import {canRecordSteps, type RecordedStep, recordStep} from '../contract/step_recorders';
import type {KeyValueCache} from '../layers/key_value_cache';
import {type DecoderParts, layersOf} from './decoder';

type Recording = {
  step: RecordedStep;
  logits: Tensor2D;
  inputs: Tensor[];
  backendName: string;
  /** The data of the weights that the step reads. Other weights are other buffers. */
  weights: object[];
};

export class DecodingStep {
  private recording: Recording | undefined;
  /** The first step compiles shaders and uploads weights, which is no part of later ones. */
  private canRecord = false;

  constructor(
    private readonly parts: DecoderParts,
    private readonly caches: readonly KeyValueCache[],
    private readonly read: (ids: Tensor2D) => Tensor2D,
  ) {}

  /** The logits [B, V] after these ids, which are the next position of the B sequences. */
  run(ids: readonly number[]): Tensor2D {
    if (this.recording != null && !this.isCurrent(this.recording)) {
      this.dispose();
    }
    if (this.recording != null) {
      this.recording.step.run([Int32Array.from(ids), Int32Array.of(this.caches[0].length)]);
      this.caches.forEach((cache) => cache.addPositions(1, undefined));
      return clone(this.recording.logits);
    }
    return this.canRecord && canRecordSteps() ? this.record(ids) : this.runUnrecorded(ids);
  }

  dispose(): void {
    if (this.recording != null) {
      this.recording.step.dispose();
      dispose(this.recording.inputs);
      this.recording = undefined;
    }
  }

  private runUnrecorded(ids: readonly number[]): Tensor2D {
    const keysBefore = this.caches.map(({keys}) => keys);
    const logits = tidy(() => this.read(tensorOf(ids)));
    // A cache that is written in place keeps its tensors.
    this.canRecord = this.caches.every(({keys}, i) => keys === keysBefore[i]);
    return logits;
  }

  private record(ids: readonly number[]): Tensor2D {
    const idsTensor = keep(tensorOf(ids));
    const [{length, sharedPosition}] = this.caches;
    const position = keep(tensor1d([length], 'int32'));
    const inputs = [idsTensor, position];
    const weights = this.weights();
    try {
      const {output, recorded} = recordStep(inputs, () => sharedPosition.in(position, () => this.read(idsTensor)));
      if (recorded == null) {
        return output;
      }
      this.recording = {step: recorded, logits: output, inputs, backendName: getBackend(), weights};
      return clone(output);
    } finally {
      if (this.recording == null) {
        dispose(inputs);
      }
    }
  }

  private isCurrent({step, backendName, weights}: Recording): boolean {
    return getBackend() === backendName && step.isCurrent() && this.weights().every((data, w) => data === weights[w]);
  }

  private weights(): object[] {
    return layersOf(this.parts).flatMap(({weights}) => weights.map((weight) => weight.read().dataId));
  }
}

const tensorOf = (ids: readonly number[]): Tensor2D => tensor2d([...ids], [ids.length, 1], 'int32');
