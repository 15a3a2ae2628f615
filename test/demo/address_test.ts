/** What a visitor of the live page chose, in an address and back. */
import {droppedShare, evenness, loadOf} from '../../demo/engine/load';
import {defaultSettings, noEdits, NUM_EXPERTS} from '../../demo/engine/settings';
import {latest} from '../../demo/latest';
import {type Choice, choiceOf, hashOf, MAX_PROMPT_LENGTH} from '../../demo/state';

describe('the address of the live page', () => {
  const usual = choiceOf('');

  it('is empty where nothing was chosen', () => {
    expect(usual.settings).toEqual(defaultSettings());
    expect(hashOf(usual)).toBe('');
  });

  it('has a prompt as long as the page takes, and no longer', () => {
    expect(choiceOf(`prompt=${'a'.repeat(MAX_PROMPT_LENGTH)}`).prompt.length).toBe(MAX_PROMPT_LENGTH);
    expect(choiceOf(`prompt=${'a'.repeat(9000)}`).prompt.length).toBe(MAX_PROMPT_LENGTH);
  });

  it('brings back every choice', () => {
    const settings = {...defaultSettings(), topk: 3, capacityFactor: 0.5, jitter: 0.2, balance: 0, biasRate: 0.02};
    settings.silenced[2] = settings.silenced[5] = true;
    settings.boosts[0] = 0.125;
    settings.sources[7] = 6;
    const textEdits = [noEdits(), noEdits(), noEdits()];
    textEdits[0].silenced[1] = textEdits[0].silenced[7] = true;
    textEdits[2].boosts[3] = 4;
    textEdits[2].sources[0] = 7;
    const strokes = [[{x: 0, y: 200}], [{x: 7, y: 150}, {x: 100, y: 3}]];
    const choice: Choice = {
      ...usual,
      settings,
      picture: {strokes},
      expert: 0,
      backend: 'webgl',
      prompt: 'Noah & "Shem"? #1',
      temperature: 1.2,
      layer: 2,
      textExpert: 7,
      textEdits,
    };
    expect(choiceOf(`#${hashOf(choice)}`)).toEqual(choice);
    expect(choiceOf(hashOf({...usual, picture: {sample: 12}})).picture).toEqual({sample: 12});
  });

  it('counts nonsense as not given', () => {
    const nonsense = 'k=9&capacity=-1&jitter=x&balance=7&silent=8.x&boost=1x99_9x2&clone=1-9_a-b&digit=-3&expert=8&backend=tpu';
    expect(choiceOf(`${nonsense}&strokes=%00&temperature=hot&layer=3&textExpert=9&bias=-1&silent.0=9&boost.1=0&clone.3=1-2`)).toEqual(usual);
  });
});

describe('the edits of the language model', () => {
  it('leave two experts in each layer', () => {
    const {textEdits} = choiceOf('silent.1=0.1.2.3.4.5.6.7');
    expect(textEdits.map(({silenced}) => silenced.filter(Boolean).length)).toEqual([0, 6, 0]);
  });
});

describe('the load of the live page', () => {
  it('counts ids of experts alone', () => {
    const load = loadOf([0, 7, 7, -1, 8]);
    expect(load).toEqual([1, 0, 0, 0, 0, 0, 0, 2]);
    expect(load.length).toBe(NUM_EXPERTS);
  });

  it('is 1 where it is even, and 0 where one expert has all', () => {
    expect(evenness([5, 5, 5, 5])).toBeCloseTo(1, 10);
    expect(evenness([0, 9, 0, 0])).toBe(0);
    expect(droppedShare([1, 2, 3, -1], [1, -1, -1, -1])).toBeCloseTo(2 / 3, 10);
    expect(droppedShare([], [])).toBe(0);
  });
});

describe('latest', () => {
  it('runs one call at a time, and of those that come meanwhile the last', async () => {
    const ends: Array<() => void> = [];
    const call = latest(() => new Promise((resolve) => ends.push(resolve)));
    const settle = () => new Promise((resolve) => setTimeout(resolve));
    call();
    call();
    call();
    expect(ends.length).toBe(1);
    ends[0]();
    await settle();
    expect(ends.length).toBe(2);
    ends[1]();
    await settle();
    expect(ends.length).toBe(2);
    call();
    expect(ends.length).toBe(3);
  });
});
