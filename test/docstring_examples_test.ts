/**
 * Every example in a docstring of src/ops, src/graph, src/layers, src/checkpoints and src/models runs as it is printed, and gives
 * the values that it states.
 */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {docstringExamples} from 'docstring-examples';
import * as checkpointsEntry from '../src/checkpoints/index';
import * as layersEntry from '../src/layers/index';
import * as modelsEntry from '../src/models/index';
import * as tf from '../src/tf';

describeWithFlags('docstring examples', ALL_ENVS, () => {
  it('exist for every op and layer', () => {
    const files = docstringExamples.map(({file}) => file);
    expect(files).toContain('mixture_of_experts.ts');
    for (const [op] of Object.entries(tf).filter(([name, value]) => typeof value === 'function' && /^(moe|fused)[A-Z]/.test(name))) {
      const file = `${op.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}.ts`;
      expect(files).toContain(file);
    }
    expect(files.length).toBeGreaterThanOrEqual(8);
  });

  docstringExamples.forEach(({file, run}) => {
    it(`${file} gives the values that it states`, async () => {
      let stated = 0;
      const expectValue = (actual: unknown, expected: unknown) => {
        stated++;
        expect(actual).toEqual(expected);
      };
      await run(tf, expectValue, {...layersEntry, ...checkpointsEntry, ...modelsEntry});
      expect(stated).toBeGreaterThan(0);
    });
  });
});
