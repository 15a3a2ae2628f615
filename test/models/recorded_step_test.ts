/** As test/webgpu/recorded_step_test.ts, for models whose programs take software GPUs long to compile. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {modelGoldens} from 'model-goldens';
import {generate, loadMoeLanguageModel} from '../../src/models/index';
import {countApplications, oneAtATime, PROMPT} from '../support/recorded_steps';

const webgpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'webgpu'};

describeWithFlags('a recorded step of a model', webgpu, () => {
  it('gives the tokens of steps that are not, in codes', async () => {
    const {file, config} = modelGoldens.mixtral;
    const model = await loadMoeLanguageModel(file, config, {format: 'int8', denseFormat: 'int8', denseScaleFormat: 'float16'});
    const wanted = await oneAtATime(model, 6);
    const applied = countApplications(model);
    const counts: number[] = [];
    expect(await generate(model, PROMPT, {maxNewTokens: 6, onToken: () => counts.push(applied())})).toEqual(wanted);
    expect(counts[5]).toBe(counts[3]);
  });
});
