/** The training of the language model. */
import {html, type TemplateResult} from 'lit-html';
import {eachExpert} from '../engine/settings';
import type {PageState} from '../state';
import type {TextActions} from '../text_actions';
import {chart} from './chart';
import {figureList, loadBars} from './figures';

/** Compressed, as scripts/build_demo.mjs writes it. */
const TEXT_SIZE = '160 kB';

export function textTrainingView(state: PageState, actions: TextActions): TemplateResult {
  const {textTraining, running} = state;
  const {isRunning, status, history} = textTraining;
  const name = history.length === 0 ? `Train, with ${TEXT_SIZE} of text` : 'Train';
  return html`<div class="training" id="train-text">
    <div class="panel">
      <h3>Train it on its text</h3>
      <div class="tools">
        ${
          isRunning
            ? html`<button type="button" class="primary" @click=${() => actions.pause()}>Pause</button>`
            : html`<button type="button" class="primary" ?disabled=${running == null} @click=${() => actions.train()}>
                ${name}
              </button>`
        }
        <button type="button" ?disabled=${isRunning || running == null} @click=${() => actions.train(1)}>Step</button>
        <button type="button" ?disabled=${isRunning || running == null} @click=${() => actions.restart('new')}>
          New weights
        </button>
        <button type="button" ?disabled=${isRunning || running == null} @click=${() => actions.restart('trained')}>
          Trained weights
        </button>
      </div>
      <p class="note" role="status">${status}</p>
      <p class="note">
        It trains without the edits of experts, and has them again when it pauses. On a device without a GPU new weights
        are of a smaller model, which learns in minutes.
      </p>
    </div>
    ${figures(state)} ${charts(state)}
  </div>`;
}

function figures({textTraining: {history}, layer}: PageState): TemplateResult {
  const last = history.at(-1);
  const heldOut = history.filter(({heldOutBits}) => heldOutBits != null).at(-1)?.heldOutBits;
  return html`<div class="panel">
    ${loadBars(`The share of characters that each expert of layer ${layer} gets`, last?.loads[layer] ?? eachExpert(() => 0))}
    ${figureList([
      ['bits a character', last == null ? '–' : last.bits.toFixed(3)],
      ['of the kept-out passage', heldOut == null ? '–' : heldOut.toFixed(3)],
    ])}
    <p class="note">
      ${last == null ? `The load is of layer ${layer}.` : `Step ${last.step}: ${last.charactersPerSecond.toFixed(0)} characters/s. The load is of layer ${layer}.`}
    </p>
  </div>`;
}

function charts({textTraining: {history}}: PageState): TemplateResult {
  return html`<div class="charts">
    ${chart('text-loss', {
      label: 'The loss of the language model in bits a character over the steps of its training',
      lines: [
        {name: 'bits a character', color: 'var(--expert-5)', values: history.map(({bits}) => bits)},
        {
          name: 'of the kept-out passage',
          color: 'var(--expert-1)',
          values: history.map(({heldOutBits}) => heldOutBits),
        },
      ],
      steps: history.map(({step}) => step),
      marks: [],
    })}
  </div>`;
}
