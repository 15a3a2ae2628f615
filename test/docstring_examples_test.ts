/** Every example in a docstring of src/ops and src/layers runs as it stands, and gives the values it states. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {docstringExamples} from 'docstring-examples';
import * as checkpoints from '../src/layers/checkpoints';
import * as safetensors from '../src/layers/safetensors';
import * as tf from '../src/tf';

/** What examples import from 'tfjs-moe/layers'. */
const layersEntry = {...checkpoints, ...safetensors};

describeWithFlags('docstring examples', ALL_ENVS, () => {
  it('are there for every op', () => {
    const files = docstringExamples.map(({file}) => file);
    for (const op of Object.keys(tf).filter((name) => /^moe[A-Z]/.test(name))) {
      const file = `${op.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}.ts`;
      expect(files).toContain(file);
    }
    expect(files.length).toBeGreaterThanOrEqual(8);
  });

  docstringExamples.forEach(({file, run}) => {
    it(`${file} gives what it states`, async () => {
      let stated = 0;
      const expectValue = (actual: unknown, expected: unknown) => {
        stated++;
        expect(actual).toEqual(expected);
      };
      await run(tf, expectValue, layersEntry);
      expect(stated).toBeGreaterThan(0);
    });
  });
});
