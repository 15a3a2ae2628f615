/** Shapes of the benchmarks, and the times of vLLM's CUDA ops at the same ones. */

/** T tokens, H hidden size, K experts per token, E experts in all, I intermediate size of an expert. */
export type Shape = {T: number; H: number; K: number; E: number; I: number};

/** Block size of moeAlignBlockSize everywhere in the benchmarks. */
export const BLOCK_SIZE = 64;

export const layers: Record<string, Omit<Shape, 'T'>> = {
  mixtral: {H: 4096, K: 2, E: 8, I: 14336},
  qwen3: {H: 2048, K: 8, E: 128, I: 768},
  'gpt-oss': {H: 2880, K: 4, E: 32, I: 2880},
  granite: {H: 1024, K: 8, E: 32, I: 512},
  olmoe: {H: 2048, K: 8, E: 64, I: 1024},
  /** A layer that one trains in a browser. */
  small: {H: 256, K: 2, E: 8, I: 1024},
};

type Times = Record<number, number>;

/** The card that vLLM's ops were timed on; only times of the same card say anything beside them. */
export const VLLM_DEVICE = 'NVIDIA H200';
export const isVllmDevice = (device: string): boolean => /h200/i.test(device);

/**
 * Median microseconds of vLLM's CUDA ops on that card, built from source and timed by CUDA graph replay, at T
 * tokens: moe_permute and moe_unpermute in float32, moe_align_block_size with blocks of 64.
 */
export const vllmMicroseconds: Record<string, Record<string, Times>> = {
  mixtral: {
    moePermute: {1: 6.9, 16: 8.3, 64: 9.0, 256: 12.9, 1024: 27.1, 4096: 89.4, 16384: 284.1},
    moeUnpermute: {1: 3.4, 16: 3.6, 64: 3.7, 256: 4.3, 1024: 12.9, 4096: 50.8, 16384: 191.0},
    moeAlignBlockSize: {1: 3.5, 16: 3.8, 64: 4.6, 256: 7.8, 1024: 5.7, 4096: 8.3, 16384: 19.8},
  },
  qwen3: {
    moePermute: {1: 8.6, 16: 9.6, 64: 12.2, 256: 18.9, 1024: 57.1, 4096: 146.0, 16384: 543.5},
    moeUnpermute: {1: 4.4, 16: 4.5, 64: 4.7, 256: 5.2, 1024: 21.5, 4096: 75.7, 16384: 284.8},
    moeAlignBlockSize: {1: 5.0, 16: 5.2, 64: 5.5, 256: 5.9, 1024: 8.7, 4096: 19.4, 16384: 62.9},
  },
  'gpt-oss': {
    moePermute: {256: 14.1, 1024: 33.0, 4096: 112.1, 16384: 391.6},
    moeUnpermute: {256: 4.6, 1024: 17.1, 4096: 59.8, 16384: 223.8},
    moeAlignBlockSize: {256: 5.1, 1024: 6.7, 4096: 12.5, 16384: 35.9},
  },
  granite: {
    moePermute: {256: 13.6, 1024: 42.1, 4096: 90.1, 16384: 305.2},
    moeUnpermute: {256: 3.5, 1024: 7.5, 4096: 39.6, 16384: 144.3},
    moeAlignBlockSize: {256: 5.5, 1024: 8.4, 4096: 19.5, 16384: 65.6},
  },
};
