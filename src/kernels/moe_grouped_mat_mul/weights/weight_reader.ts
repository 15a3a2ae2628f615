/** How programs on WebGPU read the weights of a product. */
import type {WeightTensors} from '../../../contract/expert_weights';
import type {MoeWeightFormat} from '../../../contract/kernel_names';
import type {StorageBinding} from '../../shared/webgpu';

/** Elements that are read and written at a time. */
export type Quads = 'vec4<f32>' | 'f32';

/** The buffers of weights that a program reads, and functions for them. */
type ReaderPage = {
  buffers: (weights: WeightTensors) => StorageBinding[];
  functions: string;
};

export type WeightReader = {
  /** Numbers that the functions need. */
  uniforms: Record<string, number>;
  /**
   * WGSL: rawQuad(expert, column, k), what is stored of four weights, and weightsOf(raw), the weights. Format outIn is
   * k-major: terms k to k + 3 of a column. Format inOut is n-major: columns `column` to `column` + 3 of term k. Weights
   * of terms past C are finite. Weights of columns past D are those of other columns.
   */
  tile: ReaderPage;
  lane: LaneReader;
};

/** How a lane, which has columns d to d + 3 of `expert`, reads the weights of several terms from k on at once. */
export type LaneReader = ReaderPage & {
  /** How many terms: quads of four. */
  numTerms: number;
  /** WGSL, once for all quads. */
  load: string;
  /**
   * WGSL: declares `weight0` to `weight3` of quad q. K-major: terms k + 4 * q to k + 4 * q + 3 of a column each.
   * N-major: the columns of a term each. With `scalesLater` they are still to be multiplied by the scales.
   */
  quad: (q: number, scalesLater: boolean) => string;
  /** WGSL: a vec4, the scales of the columns, if weights may be multiplied by them in the end. */
  scales?: string;
};

/**
 * WGSL: the products of weights 0 to 3 of a quad with a quad `x` of terms, a vec4 of columns. A weight has four terms
 * of a column, or four columns of a term.
 */
export const products: Readonly<Record<MoeWeightFormat, (x: string) => string>> = {
  outIn: (x) => `vec4(dot(weight0, ${x}), dot(weight1, ${x}), dot(weight2, ${x}), dot(weight3, ${x}))`,
  inOut: (x) => `weight0 * ${x}.x + weight1 * ${x}.y + weight2 * ${x}.z + weight3 * ${x}.w`,
};
