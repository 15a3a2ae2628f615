declare module 'all-specs';
declare module 'docstring-examples' {
  import type * as tf from '../../src/tf';
  export const docstringExamples: Array<{
    file: string;
    run: (
      tfNamespace: typeof tf,
      expectValue: (actual: unknown, expected: unknown) => void,
      layersEntry: object,
    ) => Promise<void>;
  }>;
}
declare module 'checkpoint-goldens' {
  /** The case.json of a case: tokens, and what transformers made of them. */
  export type RecordedBlock = {
    layerIndex: number;
    input: number[][];
    output: number[][];
    /** The chosen experts, in any order, where transformers' modules have them. */
    ids?: number[][];
  };
  export const checkpointGoldens: {
    [name: string]: {config: Record<string, unknown>; recorded?: RecordedBlock; file?: Uint8Array};
  };
}
declare module 'model-goldens' {
  /** Token ids [B, S], and the logits of transformers at some positions of each sequence. */
  export type RecordedLogits = {ids: number[][]; positions: number[]; logits: number[][][]};
  export const modelGoldens: {
    [name: string]: {
      config: Record<string, unknown>;
      /** `decode` comes after `whole`. */
      recorded: {whole: RecordedLogits; single: RecordedLogits; decode: RecordedLogits};
      file: Uint8Array;
    };
  };
}

declare module '*.safetensors' {
  const bytes: Uint8Array;
  export = bytes;
}
