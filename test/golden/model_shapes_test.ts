/**
 * The layers of real models. Their experts, top-k, routers and activations are as published; their sizes are some 256
 * times smaller and, like the real sizes, multiples of 4. Two layers are not expressed completely: a softmax replaces
 * Phi-3.5-MoE's sparsemixer, and DeepSeek-V4's values stay below its clamp.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';
import {caseOf, tensors} from '../support/fused_cases';
import {naiveFusedMoe} from '../naive/fused_moe';
import {lcg} from '../support/routings';
import models from './model_shapes.json';

type Model = {
  name: string;
  hidden: number;
  intermediate: number;
  experts: number;
  topk: number;
  hasSelectionBias: boolean;
  hasExpertBias: boolean;
  options: tf.FusedMoeOptions;
};
const scaledDown = (size: number) => 4 * Math.max(1, Math.round(size / 1024));

describeWithFlags('fusedMoe at the layers of', ALL_ENVS, () => {
  for (const {name, hidden, intermediate, experts: E, topk: K, options, ...has} of models.cases as Model[]) {
    it(name, async () => {
      const sizes = {T: 4, K, E, H: scaledDown(hidden), I: scaledDown(intermediate)};
      const {scoring, renormalize, numExpertGroups, topkGroups, routedScalingFactor, ...expertOptions} = options;
      const {w1Bias, w2Bias, expertMap: _, ...fused} = caseOf(sizes, expertOptions);
      const next = lcg(E);
      const random = (scale: number) => Array.from({length: E}, () => Math.fround(scale * (2 * next() - 1)));
      const logits = fused.x.map(() => random(3));
      const scoreCorrectionBias = has.hasSelectionBias ? random(0.5) : undefined;
      const biases = has.hasExpertBias ? {w1Bias, w2Bias} : {};

      const {x, w1, w2} = tensors(fused, sizes);
      const out = tf.fusedMoe(x, w1, w2, logits, K, {...options, scoreCorrectionBias, ...biases});
      const {values, magnitudes} = naiveFusedMoe(
        {...fused, ...biases},
        logits,
        {topk: K, scoring, renormalize, scoreCorrectionBias, numExpertGroups, topkGroups, routedScalingFactor} as
          Parameters<typeof naiveFusedMoe>[2],
        expertOptions,
      );
      expect(out.shape).toEqual([sizes.T, sizes.H]);
      expect(values.some((value) => Math.abs(value) > 1e-3)).toBeTrue();
      await expectWithin(out, values, (i) => 2e-5 * magnitudes[i] + 1e-5, name);
    });
  }
});
