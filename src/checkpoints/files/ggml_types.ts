/** The types of tensors in GGUF files: blocks of weights along the inputs. */

export type GgmlType = {
  name: string;
  /** Weights. */
  blockSize: number;
  /** Bytes. */
  typeSize: number;
};

/** By ggml's numbers. */
const types: ReadonlyArray<[id: number, name: string, blockSize: number, typeSize: number]> = [
  [0, 'F32', 1, 4],
  [1, 'F16', 1, 2],
  [2, 'Q4_0', 32, 18],
  [3, 'Q4_1', 32, 20],
  [6, 'Q5_0', 32, 22],
  [7, 'Q5_1', 32, 24],
  [8, 'Q8_0', 32, 34],
  [10, 'Q2_K', 256, 84],
  [11, 'Q3_K', 256, 110],
  [12, 'Q4_K', 256, 144],
  [13, 'Q5_K', 256, 176],
  [14, 'Q6_K', 256, 210],
  [16, 'IQ2_XXS', 256, 66],
  [17, 'IQ2_XS', 256, 74],
  [18, 'IQ3_XXS', 256, 98],
  [19, 'IQ1_S', 256, 50],
  [20, 'IQ4_NL', 32, 18],
  [21, 'IQ3_S', 256, 110],
  [22, 'IQ2_S', 256, 82],
  [23, 'IQ4_XS', 256, 136],
  [24, 'I8', 1, 1],
  [25, 'I16', 1, 2],
  [26, 'I32', 1, 4],
  [27, 'I64', 1, 8],
  [28, 'F64', 1, 8],
  [29, 'IQ1_M', 256, 56],
  [30, 'BF16', 1, 2],
  [34, 'TQ1_0', 256, 54],
  [35, 'TQ2_0', 256, 66],
  [39, 'MXFP4', 32, 17],
  [40, 'NVFP4', 64, 36],
];

const byId: ReadonlyMap<number, GgmlType> = /* @__PURE__ */ new Map(
  /* @__PURE__ */ types.map(([id, name, blockSize, typeSize]) => [id, {name, blockSize, typeSize}]),
);
const byName: ReadonlyMap<string, GgmlType> = /* @__PURE__ */ new Map(
  /* @__PURE__ */ [.../* @__PURE__ */ byId.values()].map((type) => [type.name, type]),
);

/** A type of ggml; undefined for numbers that are unknown here. */
export const ggmlType = (id: number): GgmlType | undefined => byId.get(id);

/** A type of ggml by its name. */
export const ggmlTypeNamed = (name: string): GgmlType | undefined => byName.get(name);
