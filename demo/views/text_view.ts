/** The section of the language model: characters in the colours of their experts, and the experts to edit. */
import {html, type TemplateResult} from 'lit-html';
import {guard} from 'lit-html/directives/guard.js';
import type {Route} from '../../examples/text/routes';
import {eachExpert, noEdits} from '../engine/settings';
import {MAX_PROMPT_LENGTH, MOST_SILENCED, type PageState, type Spoken} from '../state';
import type {TextActions} from '../text_actions';
import {expertButton, expertTools} from './expert_tools';
import {heatMap} from './heat_map';
import {choices, percent, slider} from './parts';
import {textTrainingView} from './text_training_view';

const NUM_TOP_CHARACTERS = 10;
/** Characters are shown in stretches, of which the last one alone changes while the model speaks. */
const STRETCH = 40;

export function textView(state: PageState, actions: TextActions): TemplateResult {
  const {spoken, numLayers} = state.speech;
  return html`<section id="text" aria-labelledby="text-title">
    <div class="heading">
      <h2 id="text-title">Let it speak</h2>
      <p>
        A language model of the same kind writes character by character, after five books of the King James Bible. Each
        character has the colour of the expert that has the most weight for it, and a line in the colour of the second.
      </p>
    </div>
    <div class="speech">
      ${controls(state, actions)}
      <div class="panel">
        ${text(state, actions)} ${toldRoutes(state)}
        ${numLayers === 0 ? '' : html`${heatMap(spoken, numLayers)} ${experts(state, actions)}`}
      </div>
    </div>
    ${textTrainingView(state, actions)}
  </section>`;
}

function controls({speech, prompt, temperature, layer, running}: PageState, actions: TextActions): TemplateResult {
  const {isSpeaking, status, numLayers, loss} = speech;
  return html`<form
    class="panel"
    @submit=${(event: Event) => {
      event.preventDefault();
      actions.speak();
    }}
  >
    <label class="field">
      <span>Type, and it goes on from there</span>
      <input
        type="text"
        maxlength=${MAX_PROMPT_LENGTH}
        .value=${prompt}
        ?disabled=${running == null}
        @focus=${() => actions.open()}
        @input=${(event: Event) => actions.choose({prompt: (event.target as HTMLInputElement).value})}
      />
    </label>
    ${slider(
      'Temperature',
      {min: 0.1, max: 1.5, step: 0.1, value: temperature, text: temperature.toFixed(1)},
      (value) => actions.choose({temperature: value}),
    )}
    <div class="tools">
      <button type="submit" class="primary" ?disabled=${running == null || prompt === ''}>
        ${isSpeaking ? 'Again' : 'Speak'}
      </button>
      <button type="button" ?disabled=${!isSpeaking} @click=${() => actions.hush()}>Stop</button>
    </div>
    <p class="note" role="status">${status}</p>
    ${
      numLayers === 0
        ? ''
        : html`<div class="knob">
            <span>Layer</span>
            ${choices(
              'Layer',
              Array.from({length: numLayers}, (_, value) => ({value, text: String(value)})),
              layer,
              (value) => actions.choose({layer: value}),
            )}
          </div>
          ${bits(loss)}`
    }
  </form>`;
}

function bits(loss: PageState['speech']['loss']): TemplateResult {
  const change = loss == null ? 0 : loss.bits - loss.bitsWithoutEdits;
  return html`<p class="accuracy" aria-live="polite">
    <span class="figure">${loss == null ? '–' : loss.bits.toFixed(3)}</span>
    <span class=${change > 0.0005 ? 'worse' : change < -0.0005 ? 'better' : ''}
      >${Math.abs(change) < 0.0005 ? 'bits a character of a kept-out passage' : `${change > 0 ? '+' : '−'}${Math.abs(change).toFixed(3)} bits a character, of a kept-out passage`}</span
    >
  </p>`;
}

/** The characters; the one that is pointed at has its experts told. */
function text({speech: {spoken}, layer}: PageState, actions: TextActions): TemplateResult {
  const starts = Array.from({length: Math.ceil(spoken.length / STRETCH)}, (_, i) => i * STRETCH);
  const point = ({target}: Event) => {
    const {index} = (target as HTMLElement).dataset;
    if (index != null) {
      actions.point(Number(index));
    }
  };
  // Spaces and lines of the template would be shown.
  return html`<p class="spoken" lang="en" @pointerover=${point}>${starts.map((start) => {
    const end = Math.min(spoken.length, start + STRETCH);
    return guard([spoken, end, layer], () =>
      spoken.slice(start, end).map(({character, routes}, i) => letter(character, routes[layer], start + i)),
    );
  })}</p>`;
}

const LEAST_COLOR = 15;
const MOST_COLOR = 60;

const letter = (character: string, {experts: [first, second], weights: [weight]}: Route, index: number) =>
  html`<span
    data-index=${index}
    style="--color: var(--expert-${first}); --second: var(--expert-${second}); --share: ${Math.round(LEAST_COLOR + (MOST_COLOR - LEAST_COLOR) * weight)}%"
    >${character}</span
  >`;

const visible = (character: string): string => ({' ': '␣', '\n': '¶'})[character] ?? character;

/** A line of the experts and weights of one character in each layer. */
function toldRoutes({speech: {spoken, pointed, numLayers}}: PageState): TemplateResult | string {
  const told = spoken[pointed ?? spoken.length - 1] ?? spoken.at(-1);
  if (numLayers === 0 || told == null) {
    return '';
  }
  return html`<dl class="routes">
    <div><dt>character</dt><dd><b>${visible(told.character)}</b></dd></div>
    ${told.routes.map(
      ({experts, weights}, layer) =>
        html`<div>
          <dt>layer ${layer}</dt>
          <dd>
            ${experts.map(
              (expert, k) =>
                html`<span><b class="chip" style="--color: var(--expert-${expert})">${expert}</b> ${percent(weights[k], 0)}</span>`,
            )}
          </dd>
        </div>`,
    )}
  </dl>`;
}

/** The experts of the layer, and the characters that each has the most weight for. */
function experts(state: PageState, actions: TextActions): TemplateResult {
  const {speech, layer, textExpert, textEdits} = state;
  const edits = textEdits[layer] ?? noEdits();
  const weights = weightsOf(speech.spoken, layer);
  const total = speech.spoken.length;
  const select = (expert: number) => actions.choose({textExpert: textExpert === expert ? undefined : expert});
  return html`<ol class="characters" aria-label=${`The experts of layer ${layer}, and the characters of most weight`}>
      ${weights.map((ofCharacters, expert) => {
        const top = [...ofCharacters].sort(([, a], [, b]) => b - a).slice(0, NUM_TOP_CHARACTERS);
        const share = [...ofCharacters.values()].reduce((sum, weight) => sum + weight, 0) / Math.max(1, total);
        const told = `${percent(share, 0)} of the weight`;
        return html`<li>
          ${expertButton(edits, expert, {isSelected: textExpert === expert, told}, select)}
          <span>${top.map(([character]) => visible(character)).join(' ')}</span>
        </li>`;
      })}
    </ol>
    ${expertTools(edits, textExpert, (change) => actions.edit(change), MOST_SILENCED)}`;
}

function weightsOf(spoken: readonly Spoken[], layer: number): Map<string, number>[] {
  const sums = eachExpert(() => new Map<string, number>());
  for (const {character, routes} of spoken) {
    const {experts: ids, weights} = routes[layer];
    ids.forEach((expert, k) => sums[expert].set(character, (sums[expert].get(character) ?? 0) + weights[k]));
  }
  return sums;
}
