/** The section that trains the net while its knobs are turned. */
import {html, type TemplateResult} from 'lit-html';
import {NUM_EXPERTS, type Settings} from '../engine/settings';
import type {PageState} from '../state';
import {chart} from './chart';
import {figureList, loadBars} from './figures';
import {percent, slider} from './parts';

/** What brings the experts back. */
export type Remedy = 'loss' | 'bias';

export type TrainingActions = {
  train(): void;
  pause(): void;
  stepOnce(): void;
  restart(from: 'trained' | number): void;
  tellStory(remedy: Remedy): void;
  change(settings: Partial<Settings>): void;
};

export function trainingView(state: PageState, actions: TrainingActions): TemplateResult {
  const {training, settings} = state;
  const {isRunning, story} = training;
  return html`<section id="train" aria-labelledby="train-title">
    <div class="heading">
      <h2 id="train-title">Train it</h2>
      <p>
        Left alone, a router sends everything to the few experts that learned first. A balancing loss holds it back, or a
        bias on the choice alone, which each step moves up for experts with less than an even share and down for the
        others. Turn the knobs while the net above learns.
      </p>
    </div>
    <div class="training">
      <div class="panel">
        <div class="tools">
          ${
            isRunning
              ? html`<button type="button" class="primary" @click=${() => actions.pause()}>Pause</button>`
              : html`<button type="button" class="primary" @click=${() => actions.train()}>Train</button>`
          }
          <button type="button" ?disabled=${isRunning} @click=${() => actions.stepOnce()}>Step</button>
          <button type="button" ?disabled=${story != null} @click=${() => actions.restart(Math.floor(2 ** 32 * Math.random()))}>New weights</button>
          <button type="button" ?disabled=${story != null} @click=${() => actions.restart('trained')}>
            Trained weights
          </button>
        </div>
        ${slider(
          'Factor of the balancing loss',
          {min: 0, max: 0.2, step: 0.01, value: settings.balance, text: settings.balance.toFixed(2)},
          (balance) => actions.change({balance}),
        )}
        ${slider(
          'Step of the balancing bias',
          {min: 0, max: 0.1, step: 0.01, value: settings.biasRate, text: settings.biasRate.toFixed(2)},
          (biasRate) => actions.change({biasRate}),
        )}
        ${slider(
          'Jitter of what the router reads',
          {min: 0, max: 0.5, step: 0.05, value: settings.jitter, text: `± ${percent(settings.jitter, 0)}`},
          (jitter) => actions.change({jitter}),
        )}
        <div class="story">
          <h3>Watch it collapse and recover</h3>
          <div class="tools">
            <button type="button" ?disabled=${story != null} @click=${() => actions.tellStory('loss')}>By the loss</button>
            <button type="button" ?disabled=${story != null} @click=${() => actions.tellStory('bias')}>By the bias</button>
          </div>
          <p role="status">${story ?? ''}</p>
        </div>
      </div>
      ${loadView(state)} ${chartsView(state)}
    </div>
  </section>`;
}

function loadView({training, evaluation}: PageState): TemplateResult {
  const last = training.history.at(-1);
  const load = last?.load ?? evaluation?.load ?? new Array<number>(NUM_EXPERTS).fill(0);
  const accuracy =
    training.history.filter((progress) => progress.accuracy != null).at(-1)?.accuracy ?? evaluation?.accuracy;
  const figures: [string, string][] = [
    ['loss', last == null ? '–' : last.loss.toFixed(3)],
    ['held-out accuracy', accuracy == null ? '–' : percent(accuracy)],
    ['entropy of the load, of uniform', (last?.evenness ?? evaluation?.evenness)?.toFixed(2) ?? '–'],
    ['dropped', percent(last?.dropped ?? evaluation?.dropped ?? 0)],
  ];
  return html`<div class="panel">
    ${loadBars('The share of patches that each expert gets', load)} ${figureList(figures)}
    <p class="note">
      ${last == null ? 'Loads are of the held-out digits.' : `Step ${last.step}: ${last.milliseconds.toFixed(0)} ms for 50 digits.`}
    </p>
  </div>`;
}

function chartsView({training: {history}}: PageState): TemplateResult {
  const steps = history.map(({step}) => step);
  const marks = history.flatMap(({step, balance, biasRate}, i) => {
    const before = history[i - 1] ?? {balance, biasRate};
    const words = [
      before.balance === balance ? '' : `loss × ${balance}`,
      before.biasRate === biasRate ? '' : `bias ± ${biasRate}`,
    ];
    const text = words.filter((word) => word !== '').join(', ');
    return text === '' ? [] : [{step, text}];
  });
  return html`<div class="charts">
    ${chart('loss', {
      label: 'The loss over the steps of the training',
      lines: [{name: 'loss', color: 'var(--expert-5)', values: history.map(({loss}) => loss)}],
      steps,
      marks,
    })}
    ${chart('shares', {
      label: 'The entropy of the load and the held-out accuracy over the steps of the training',
      lines: [
        {name: 'entropy of the load', color: 'var(--expert-1)', values: history.map(({evenness}) => evenness)},
        {name: 'held-out accuracy', color: 'var(--expert-3)', values: history.map(({accuracy}) => accuracy)},
      ],
      steps,
      max: 1,
      marks,
    })}
  </div>`;
}
