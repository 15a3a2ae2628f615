/** generate against whole predictions, and its choices, ends and errors. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {modelGoldens} from 'model-goldens';
import {generate, type GenerateOptions, loadMoeLanguageModel} from '../../src/models/index';
import {sampler} from '../../src/models/sampling';
import * as tf from '../../src/tf';

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

const load = (name: string): Promise<tf.LayersModel> => loadMoeLanguageModel(modelGoldens[name].file, modelGoldens[name].config);

/** The likeliest tokens, by a prediction of all positions for each. */
async function likeliest(model: tf.LayersModel, prompt: number[], numTokens: number): Promise<number[]> {
  const ids = [...prompt];
  for (let i = 0; i < numTokens; i++) {
    const logits = model.predict(tf.tensor2d([ids], undefined, 'int32')) as tf.Tensor3D;
    const [row] = await tf.argMax(logits, 2).array() as number[][];
    ids.push(row[ids.length - 1]);
  }
  return ids.slice(prompt.length);
}

describeWithFlags('generate', ALL_ENVS, () => {
  it('takes the likeliest tokens, of prompts of different lengths too, and keeps no tensor', async () => {
    const model = await load('mixtral');
    const prompts = [[5, 9, 30, 2], [17]];
    const wanted = [await likeliest(model, prompts[0], 4), await likeliest(model, prompts[1], 4)];
    const {numTensors} = tf.memory();
    const heard: number[][] = [[], []];
    const options = {maxNewTokens: 4, onToken: (id: number, sequence: number) => void heard[sequence].push(id)};
    expect(await generate(model, prompts, options)).toEqual(wanted);
    expect(heard).toEqual(wanted);
    expect(await generate(model, prompts[1], {maxNewTokens: 4, capacity: 20})).toEqual(wanted[1]);
    expect(tf.memory().numTensors).toBe(numTensors);
  });
});

describeWithFlags('generate, on the host', cpu, () => {
  it('continues as predictions of all positions say, with windows and sinks', async () => {
    const {config, file} = modelGoldens.gpt_oss;
    const model = await loadMoeLanguageModel(file, {...config, sliding_window: 3});
    expect(await generate(model, [4, 50, 2], {maxNewTokens: 8})).toEqual(await likeliest(model, [4, 50, 2], 8));
  });

  it('draws the same tokens for the same seed, and others for others', async () => {
    const model = await load('olmoe');
    const draw = (options: Partial<GenerateOptions>) =>
      generate(model, [1, 2], {maxNewTokens: 12, temperature: 1.5, seed: 3, ...options});
    const tokens = await draw({});
    expect(await draw({})).toEqual(tokens);
    expect(await draw({seed: 4})).not.toEqual(tokens);
    const greedy = await generate(model, [1, 2], {maxNewTokens: 12});
    expect(await draw({topK: 1})).toEqual(greedy);
    expect(await draw({topP: 1e-6})).toEqual(greedy);
  });

  it('draws in proportion to probabilities, of the tokens that topK and topP leave', async () => {
    const logits = tf.tensor2d([[Math.log(1), Math.log(4), Math.log(3), Math.log(2)]]);
    const countsOf = async (options: object) => {
      const sample = sampler({temperature: 1, seed: 1, ...options}, 'spec');
      const counts = [0, 0, 0, 0];
      for (let i = 0; i < 2000; i++) {
        counts[(await sample(logits))[0]]++;
      }
      return counts.map((count) => count / 2000);
    };
    const expectNear = (shares: number[], wanted: number[]) =>
      shares.forEach((share, i) => wanted[i] === 0 ? expect(share).toBe(0) : expect(Math.abs(share - wanted[i])).toBeLessThan(0.04));
    expectNear(await countsOf({}), [0.1, 0.4, 0.3, 0.2]);
    expectNear(await countsOf({topK: 2}), [0, 4 / 7, 3 / 7, 0]);
    expectNear(await countsOf({topP: 0.75}), [0, 4 / 9, 3 / 9, 2 / 9]);
    expectNear(await countsOf({topK: 3, topP: 0.75}), [0, 4 / 7, 3 / 7, 0]);
    expectNear(await countsOf({temperature: 0.5}), [1 / 30, 16 / 30, 9 / 30, 4 / 30]);
  });

  it('draws from a large vocabulary, of which most has no weight', async () => {
    // The weight of id i is 0.9^i, in a shuffled order; from 0.9^1000 on it is next to none.
    const logits = tf.tensor2d([Array.from({length: 5000}, (_, id) => ((id * 7) % 5000) * Math.log(0.9))]);
    const rank = (id: number) => (id * 7) % 5000;
    for (const [options, numLeft] of [[{topK: 40}, 40], [{topP: 0.9}, 22], [{topP: 1 - 1e-6}, 132], [{topK: 4999}, 4999]] as const) {
      const sample = sampler({temperature: 1, seed: 1, ...options}, 'spec');
      let largest = 0;
      for (let i = 0; i < 300; i++) {
        largest = Math.max(largest, rank((await sample(logits))[0]));
      }
      expect(largest).toBeLessThan(numLeft);
      expect(largest).toBeGreaterThan(Math.min(numLeft - 10, 25));
    }
  });

  it('ends before stop tokens, each sequence by itself', async () => {
    const model = await load('mixtral');
    const prompts = [[5, 9, 30, 2], [17]];
    const [first, second] = await generate(model, prompts, {maxNewTokens: 6});
    const stopTokenIds = [first[2]];
    const until = (tokens: number[]) => tokens.slice(0, tokens.includes(first[2]) ? tokens.indexOf(first[2]) : 6);
    expect(await generate(model, prompts, {maxNewTokens: 6, stopTokenIds})).toEqual([until(first), until(second)]);
  });

  it('is called off by a signal or an error of onToken, and keeps no tensor', async () => {
    const model = await load('mixtral');
    // The layers of experts keep the load of their last call.
    await generate(model, [1], {maxNewTokens: 1});
    const {numTensors} = tf.memory();
    const controller = new AbortController();
    let numHeard = 0;
    const stopped = generate(model, [1], {
      maxNewTokens: 100,
      signal: controller.signal,
      onToken: () => {
        numHeard++;
        controller.abort();
      },
    });
    await expectAsync(stopped).toBeRejectedWithError(/aborted/);
    expect(numHeard).toBe(1);
    const failing = () => {
      throw new Error('of the page');
    };
    await expectAsync(generate(model, [1], {maxNewTokens: 3, onToken: failing})).toBeRejectedWithError('of the page');
    expect(tf.memory().numTensors).toBe(numTensors);
  });

  it('refuses what does not fit before any work', async () => {
    const model = await load('mixtral');
    const {numTensors} = tf.memory();
    const refused: Array<[unknown, object, RegExp]> = [
      [[], {}, /ids must be an array of at least one token id/],
      [[1, 64], {}, /ids\[1\] must be a token id from 0 to 63, but is 64/],
      [[[1], [-1]], {}, /ids\[1\]\[0\] must be a token id/],
      [[1], {maxNewTokens: 0}, /maxNewTokens must be a positive integer/],
      [[1, 2, 3], {capacity: 6}, /capacity must be at least 7, for the prompt and maxNewTokens, but is 6/],
      [[1], {temperature: -1}, /temperature must be a number of at least 0/],
      [[1], {topK: 0}, /topK must be a positive integer/],
      [[1], {topP: 0}, /topP must be a number above 0/],
      [[1], {stopTokenIds: [99]}, /stopTokenIds\[0\] must be a token id/],
      [[1], {onToken: 1}, /onToken must be a function/],
      [[1], {numTokens: 1}, /unknown option 'numTokens'/],
    ];
    for (const [ids, options, message] of refused) {
      await expectAsync(generate(model, ids as number[], {maxNewTokens: 5, ...options})).toBeRejectedWithError(message);
    }
    const other = tf.sequential({layers: [tf.layers.dense({units: 1, inputShape: [1]})]});
    await expectAsync(generate(other, [1], {maxNewTokens: 1})).toBeRejectedWithError(/must be one of moeLanguageModel .* has no layer/);
    other.dispose();
    expect(tf.memory().numTensors).toBe(numTensors);
  });
});
