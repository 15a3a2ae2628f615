/** The first section: a digit, its way through the experts, and the answer. */
import {html, type TemplateResult} from 'lit-html';
import type {Settings} from '../engine/settings';
import type {PageState} from '../state';
import {expertTools} from './expert_tools';
import {flow} from './flow';
import {pad, type PadActions} from './pad';
import {choices, percent} from './parts';

export type DigitActions = PadActions & {
  selectExpert(expert: number): void;
  change(settings: Partial<Settings>): void;
};

const capacities = [null, 2, 1, 0.5].map((value) => ({value, text: value == null ? 'any' : `× ${value}`}));

export const digitsView = (state: PageState, actions: DigitActions): TemplateResult =>
  html`<section id="draw" class="draw" aria-labelledby="draw-title">
    <h2 id="draw-title" class="sr-only">Draw</h2>
    ${pad(state, actions)}
    <div class="router">
      ${flow(state, (expert) => actions.selectExpert(expert))} ${expertTools(state.settings, state.expert, (edits) => actions.change(edits))}
      <div class="knobs">
        <div class="knob">
          <span>Experts for each patch</span>
          ${choices(
            'Experts for each patch',
            [1, 2, 3, 4].map((value) => ({value, text: String(value)})),
            state.settings.topk,
            (topk) => actions.change({topk}),
          )}
        </div>
        <div class="knob">
          <span>Room in an expert, of an even share</span>
          ${choices('Room in an expert', capacities, state.settings.capacityFactor, (capacityFactor) =>
            actions.change({capacityFactor}),
          )}
        </div>
      </div>
    </div>
    ${answer(state)}
  </section>`;

function answer(state: PageState): TemplateResult {
  const {routed, evaluation, trainedAccuracy, label, picture} = state;
  const isBlank = 'strokes' in picture && picture.strokes.length === 0;
  const probabilities = routed == null || isBlank ? new Array<number>(10).fill(0) : routed.probabilities;
  const best = probabilities.indexOf(Math.max(...probabilities));
  const change = evaluation == null || trainedAccuracy == null ? 0 : evaluation.accuracy - trainedAccuracy;
  return html`<div class="answer">
    <p class="reads" aria-live="polite">
      <span class="digit">${routed == null || isBlank ? '–' : best}</span>
      <span
        >${label == null ? 'is what it reads' : label === best ? 'is right' : html`is wrong: written was <b>${label}</b>`}</span
      >
    </p>
    <ol class="bars" aria-label="The probability of each digit">
      ${probabilities.map(
        (probability, digit) =>
          html`<li class=${digit === best && !isBlank ? 'best' : ''}>
            <span>${digit}</span>
            <span class="track"><span style="width: ${100 * probability}%"></span></span>
            <span class="number">${percent(probability, 0)}</span>
          </li>`,
      )}
    </ol>
    <p class="accuracy" aria-live="polite">
      <span class="figure">${evaluation == null ? '–' : percent(evaluation.accuracy)}</span>
      <span class=${change < -0.0005 ? 'worse' : change > 0.0005 ? 'better' : ''}
        >${Math.abs(change) < 0.0005 ? 'of 500 held-out digits are read right' : `${change > 0 ? '+' : '−'}${Math.abs(100 * change).toFixed(1)} points, of 500 held-out digits`}</span
      >
    </p>
  </div>`;
}
