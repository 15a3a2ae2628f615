/** The net of the live page: the model of examples/digits, and what a visitor changes on it. */
import {ALL_ENVS, describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {classify, lossesOf, makeWeights, type NetWeights, newWeightValues, route, weightNames} from '../../demo/engine/net';
import {defaultSettings, eachExpert, NUM_EXPERTS, type Settings} from '../../demo/engine/settings';
import {NUM_CLASSES, NUM_PATCHES, PATCH_PIXELS} from '../../examples/digits/digits';
import {makeDigitModel} from '../../examples/digits/model';
import * as tf from '../../src/tf';
import {expectWithin} from '../support/expect';
import {lcg} from '../support/routings';

const NUM_DIGITS = 6;
const NUM_TOKENS = NUM_DIGITS * NUM_PATCHES;

type Fixture = {weights: NetWeights; patches: tf.Tensor2D};

function makeFixture(): Fixture {
  const random = lcg(1);
  const pixels = Float32Array.from({length: NUM_TOKENS * PATCH_PIXELS}, () => random());
  return {weights: makeWeights(newWeightValues(random)), patches: tf.tensor2d(pixels, [NUM_TOKENS, PATCH_PIXELS])};
}

const disposeOf = ({weights, patches}: Fixture): void => tf.dispose([...Object.values(weights), patches]);

const withSettings = (changed: Partial<Settings>): Settings => ({...defaultSettings(), ...changed});

const logitsOf = ({weights, patches}: Fixture, settings: Settings): tf.Tensor2D =>
  tf.tidy(() => classify(weights, route(weights, patches, settings), settings));

async function idsOf({weights, patches}: Fixture, settings: Settings): Promise<number[][]> {
  const ids = tf.tidy(() => route(weights, patches, settings).keptIds);
  const values = await ids.array();
  ids.dispose();
  return values;
}

describeWithFlags('the net of the live page', ALL_ENVS, () => {
  let fixture: Fixture;
  beforeEach(() => {
    fixture = makeFixture();
  });
  afterEach(() => disposeOf(fixture));

  it('is the model of examples/digits', async () => {
    const {weights, patches} = fixture;
    const {model} = makeDigitModel({loadBalancingLossWeight: 0.05, seed: 1});
    model.setWeights(weightNames.map((name) => weights[name]));
    const wanted = model.predict(tf.reshape(patches, [NUM_DIGITS, NUM_PATCHES, PATCH_PIXELS])) as tf.Tensor2D;
    const probabilities = tf.softmax(logitsOf(fixture, defaultSettings()));
    await expectWithin(probabilities, await wanted.array(), () => 1e-5, 'probabilities');
    model.dispose();
  });

  it('sends no patch to a silenced expert, even where fewer experts than K are left', async () => {
    const [first] = (await idsOf(fixture, defaultSettings())).flat();
    const withoutFirst = withSettings({silenced: eachExpert((expert) => expert === first)});
    const ids = (await idsOf(fixture, withoutFirst)).flat();
    expect(ids).not.toContain(first);
    expect(ids).not.toContain(-1);
    const onlyFirst = withSettings({silenced: eachExpert((expert) => expert !== first)});
    expect(await idsOf(fixture, onlyFirst)).toEqual(new Array<number[]>(NUM_TOKENS).fill([first, -1]));
  });

  it('chooses by the balancing bias, and weights without it', async () => {
    const {weights, patches} = fixture;
    const settings = withSettings({topk: 1, silenced: eachExpert((expert) => expert === 4)});
    const {topkIds, topkWeights, routerLogits} = tf.tidy(() => {
      const scoreCorrectionBias = tf.tensor1d(eachExpert((expert) => (expert === 3 ? 2 : expert === 4 ? 9 : 0)));
      return route(weights, patches, settings, {scoreCorrectionBias});
    });
    expect(Array.from(await topkIds.data())).toEqual(new Array<number>(NUM_TOKENS).fill(3));
    const probabilities = tf.tidy(() => tf.slice(tf.softmax(routerLogits), [0, 3], [-1, 1]));
    await expectWithin(topkWeights as tf.Tensor2D, (await probabilities.array()) as number[][], () => 1e-6, 'weights');
    tf.dispose([topkIds, topkWeights, routerLogits, probabilities]);
  });

  it('gives an expert another one’s weights, and boosts what it adds', async () => {
    const {weights} = fixture;
    const edited = logitsOf(fixture, withSettings({sources: eachExpert(() => 2), boosts: eachExpert(() => 3)}));
    const values = tf.tidy(() => {
      const cloned = {
        ...weights,
        w1: tf.gather(weights.w1, tf.fill([NUM_EXPERTS], 2, 'int32')),
        w2: tf.mul(tf.gather(weights.w2, tf.fill([NUM_EXPERTS], 2, 'int32')), 3),
      } as NetWeights;
      return logitsOf({...fixture, weights: cloned}, defaultSettings());
    });
    await expectWithin(edited, await values.array(), () => 1e-5, 'logits');
    tf.dispose([edited, values]);
  });

  it('leaves no expert more patches than its capacity', async () => {
    const ids = (await idsOf(fixture, withSettings({capacityFactor: 0.5}))).flat();
    const capacity = Math.ceil((0.5 * NUM_TOKENS * 2) / NUM_EXPERTS);
    const loads = eachExpert((expert) => ids.filter((id) => id === expert).length);
    expect(Math.max(...loads)).toBe(capacity);
    expect(ids).toContain(-1);
  });

  it('has gradients to every weight, under every setting at once', async () => {
    const {weights, patches} = fixture;
    const settings = withSettings({
      topk: 3,
      capacityFactor: 2,
      jitter: 0.1,
      silenced: eachExpert((expert) => expert > 1),
      boosts: eachExpert((expert) => 1 + expert),
      sources: eachExpert((expert) => Math.max(expert, 1)),
    });
    const targets = tf.tidy(
      () => tf.cast(tf.oneHot(tf.range(0, NUM_DIGITS, 1, 'int32'), NUM_CLASSES), 'float32') as tf.Tensor2D,
    );
    const {grads} = tf.variableGrads(() => {
      const {loss, balancingLoss} = lossesOf(weights, patches, targets, settings);
      return tf.add(loss, balancingLoss);
    }, Object.values(weights));
    for (const name of weightNames) {
      const sizes = tf.tidy(() => tf.sum(tf.abs(grads[weights[name].name])));
      const [size] = await sizes.data();
      expect(size).withContext(name).toBeGreaterThan(0);
      expect(Number.isFinite(size)).withContext(name).toBeTrue();
    }
  });
});
