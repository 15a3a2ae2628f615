/** The section that trains the net while its knobs are turned. */
import {html, type TemplateResult} from 'lit-html';
import {NUM_EXPERTS, type Settings} from '../engine/settings';
import type {PageState} from '../state';
import {chart} from './chart';
import {percent, slider} from './parts';

export type TrainingActions = {
  train(): void;
  pause(): void;
  stepOnce(): void;
  restart(from: 'trained' | number): void;
  tellStory(): void;
  change(settings: Partial<Settings>): void;
};

/** The tallest bar of a load, of an even share. */
const MOST_OF_EVEN = 3;

export function trainingView(state: PageState, actions: TrainingActions): TemplateResult {
  const {training, settings} = state;
  const {isRunning, story} = training;
  return html`<section id="train" aria-labelledby="train-title">
    <div class="heading">
      <h2 id="train-title">Train it</h2>
      <p>
        Left alone, a router sends everything to the few experts that learned first. A balancing loss holds it back. Turn
        the knobs while the net above learns.
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
          'Jitter of what the router reads',
          {min: 0, max: 0.5, step: 0.05, value: settings.jitter, text: `± ${percent(settings.jitter, 0)}`},
          (jitter) => actions.change({jitter}),
        )}
        <div class="story">
          <button type="button" ?disabled=${story != null} @click=${() => actions.tellStory()}>
            Watch it collapse and recover
          </button>
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
  const total = Math.max(
    1,
    load.reduce((sum, count) => sum + count, 0),
  );
  const accuracy =
    training.history.filter((progress) => progress.accuracy != null).at(-1)?.accuracy ?? evaluation?.accuracy;
  const figures = [
    ['loss', last == null ? '–' : last.loss.toFixed(3)],
    ['held-out accuracy', accuracy == null ? '–' : percent(accuracy)],
    ['entropy of the load, of uniform', (last?.evenness ?? evaluation?.evenness)?.toFixed(2) ?? '–'],
    ['dropped', percent(last?.dropped ?? evaluation?.dropped ?? 0)],
  ];
  return html`<div class="panel">
    <ol class="load" aria-label="The share of patches that each expert gets">
      ${load.map((count, expert) => {
        const share = count / total;
        const height = Math.min(1, (share * NUM_EXPERTS) / MOST_OF_EVEN);
        return html`<li style="--color: var(--expert-${expert})">
          <span class="column"><span style="transform: scaleY(${height})"></span></span>
          <span>${percent(share, 0)}</span>
          <span class="sr-only">for expert ${expert}</span>
        </li>`;
      })}
    </ol>
    <dl class="figures">
      ${figures.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
    <p class="note">
      ${last == null ? 'Loads are of the held-out digits.' : `Step ${last.step}: ${last.milliseconds.toFixed(0)} ms for 50 digits.`}
    </p>
  </div>`;
}

function chartsView({training: {history}}: PageState): TemplateResult {
  const steps = history.map(({step}) => step);
  const marks = history.flatMap(({step, balance}, i) =>
    i > 0 && history[i - 1].balance !== balance ? [{step, text: `balance ${balance}`}] : [],
  );
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
