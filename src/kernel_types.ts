/** What of kernel_names.ts is public: names and types, for those who register a kernel of their own. */
export {
  MoeAlignBlockSize,
  type MoeAlignBlockSizeAttrs,
  type MoeAlignBlockSizeInputs,
  MoePermute,
  type MoePermuteAttrs,
  type MoePermuteInputs,
  MoeSum,
  type MoeSumInputs,
  MoeUnpermute,
  MoeUnpermuteBackpropRows,
  type MoeUnpermuteBackpropRowsAttrs,
  type MoeUnpermuteBackpropRowsInputs,
  MoeUnpermuteBackpropWeights,
  type MoeUnpermuteBackpropWeightsInputs,
  type MoeUnpermuteInputs,
} from './kernel_names';
