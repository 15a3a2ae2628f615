/**
 * MoeQuantizedProjections on WebGPU, 1 launch: the stream of webgpu_stream.ts for one expert, whose columns go into up
 * to three results.
 */
import {type MoeActivationAttrs, MoeQuantizedProjections} from '../../contract/kernel_names';
import {assertBindable, newTensor, runWgsl, webgpuKernel} from '../shared/webgpu';
import {activationUniforms} from './activations';
import {weightReader} from './weights/index';
import {encodingName, TILE_OF_ONE_EXPERT, xRowOf} from './webgpu_program';
import {CONSTANTS, streamWgsl, TILE_ROWS} from './webgpu_stream';

const NO_ACTIVATION: MoeActivationAttrs = {
  activation: 'linear',
  gated: false,
  gateUp: 'concatenated',
  swigluAlpha: 0,
  swigluLimit: Infinity,
};

/** Column o of all is a column of result `m`, if it is below the end of its columns. */
const writeWgsl = (numResults: number): string => {
  const writes = Array.from(
    {length: numResults},
    (_, m) => /* wgsl */ `
    if (column < uniforms.numColumns${m}) {
      out${m}[row * uniforms.numColumns${m} + column] = value;
      return;
    }
    column -= uniforms.numColumns${m};`,
  );
  return /* wgsl */ `
  fn writeOutput(row : u32, o : u32, value : f32) {
    var column = o;${writes.join('')}
  }`;
};

export const moeQuantizedProjectionsWebGPU = webgpuKernel(MoeQuantizedProjections, (backend, inputs, attrs) => {
  const {x, codes, scales, offsets, bias} = inputs;
  const {encoding, numColumns0, numColumns1, numColumns2} = attrs;
  const [numRows, numIn] = x.shape;
  const sizes = [numColumns0, numColumns1, numColumns2].filter((size) => size > 0);
  const numColumns = sizes.reduce((sum, size) => sum + size);
  assertBindable(backend, MoeQuantizedProjections, {x: x.shape});
  const outs = sizes.map((size) => newTensor(backend, [numRows, size], 'float32'));
  const part = {weights: codes, scales, offsets};
  const quads = numIn % 4 === 0 ? 'vec4<f32>' : 'f32';
  const weights = weightReader({encoding, weightFormat: 'outIn'}, part, quads);
  const {lane} = weights;
  const page = {
    quads,
    weights,
    weightFormat: 'outIn',
    rows: TILE_OF_ONE_EXPERT + xRowOf({}),
    write: writeWgsl(outs.length),
  } as const;
  runWgsl(backend, {
    name: `MoeQuantizedProjections${outs.length}${encodingName(encoding)}`,
    buffers: [
      ...outs.map((tensor, m) => ({name: `out${m}`, type: 'f32', access: 'read_write', tensor}) as const),
      {name: 'x', type: quads, access: 'read', tensor: x},
      ...lane.buffers(part),
      // x in place of no bias, which is then not read.
      {name: 'bias', type: 'f32', access: 'read', tensor: bias ?? x},
    ],
    uniforms: {
      numRows,
      numIn,
      numColumns,
      numOutputs: numColumns,
      ...Object.fromEntries(sizes.map((size, m) => [`numColumns${m}`, size])),
      hasBias: bias == null ? 0 : 1,
      isGated: 0,
      isConcatenated: 0,
      ...activationUniforms(NO_ACTIVATION),
      ...weights.uniforms,
    },
    constants: {
      TILE_ROWS: TILE_ROWS.few,
      ...CONSTANTS,
      LANE_TERMS: lane.numTerms,
      HAS_K_TAIL: numIn % (lane.numTerms * CONSTANTS.NUM_LANES) === 0 ? 0 : 1,
    },
    numWorkgroups: Math.ceil(numColumns / CONSTANTS.TILE_COLUMNS),
    code: () => streamWgsl(page, TILE_ROWS.few),
  });
  const [out0, out1, out2] = outs;
  return {out0, ...(out1 && {out1}), ...(out2 && {out2})};
});
