/** The section in which the language model speaks, each character in the colour of its expert. */
import {html, svg, type TemplateResult} from 'lit-html';
import {guard} from 'lit-html/directives/guard.js';
import {eachExpert, NUM_EXPERTS} from '../engine/settings';
import type {PageState, Spoken} from '../state';
import {choices, slider} from './parts';

export type TextActions = {
  speak(): void;
  hush(): void;
  changeText(change: {prompt?: string; temperature?: number; layer?: number}): void;
};

/** Columns of the heat map: the last characters. */
const NUM_COLUMNS = 120;
const NUM_TOP_CHARACTERS = 10;

export function textView(state: PageState, actions: TextActions): TemplateResult {
  const {speech, prompt, temperature, layer, running} = state;
  const {spoken, isSpeaking, status} = speech;
  const numLayers = spoken[0]?.experts.length ?? 0;
  return html`<section id="text" aria-labelledby="text-title">
    <div class="heading">
      <h2 id="text-title">Let it speak</h2>
      <p>
        A language model of the same kind writes character by character, after five books of the King James Bible. Each
        character has the colour of the expert that it went to first.
      </p>
    </div>
    <div class="speech">
      <form
        class="panel"
        @submit=${(event: Event) => {
          event.preventDefault();
          actions.speak();
        }}
      >
        <label class="field">
          <span>It goes on from</span>
          <input
            type="text"
            maxlength="200"
            .value=${prompt}
            @input=${(event: Event) => actions.changeText({prompt: (event.target as HTMLInputElement).value})}
          />
        </label>
        ${slider(
          'Temperature',
          {min: 0.1, max: 1.5, step: 0.1, value: temperature, text: temperature.toFixed(1)},
          (value) => actions.changeText({temperature: value}),
        )}
        <div class="tools">
          <button type="submit" class="primary" ?disabled=${running == null}>
            ${isSpeaking ? 'Again' : 'Speak'}
          </button>
          <button type="button" ?disabled=${!isSpeaking} @click=${() => actions.hush()}>Stop</button>
        </div>
        <p class="note" role="status">${status}</p>
        ${
          numLayers < 2
            ? ''
            : html`<div class="knob">
              <span>Colours of layer</span>
              ${choices(
                'Layer',
                Array.from({length: numLayers}, (_, value) => ({value, text: String(value)})),
                layer,
                (value) => actions.changeText({layer: value}),
              )}
            </div>`
        }
      </form>
      <div class="panel">
        <p class="spoken" lang="en">${guard([spoken, spoken.length, layer], () => spoken.map((one) => letter(one, layer)))}</p>
        ${guard([spoken, spoken.length, layer], () =>
          spoken.length === 0 ? '' : html`${heatMap(spoken, numLayers)} ${topCharacters(spoken, layer)}`,
        )}
      </div>
    </div>
  </section>`;
}

const letter = ({character, experts}: Spoken, layer: number): TemplateResult =>
  html`<span style="--color: var(--expert-${experts[layer] ?? 0})">${character}</span>`;

/** A row for each expert of each layer, and a column for each character. */
function heatMap(spoken: readonly Spoken[], numLayers: number): TemplateResult {
  const shown = spoken.slice(-NUM_COLUMNS);
  const rows = numLayers * (NUM_EXPERTS + 1) - 1;
  return html`<figure class="heat-map">
    <figcaption><span>The last ${NUM_COLUMNS} characters, by the experts of layers 0 to ${numLayers - 1}</span></figcaption>
    <svg
      viewBox="0 0 ${NUM_COLUMNS} ${rows}"
      preserveAspectRatio="none"
      role="img"
      aria-label="Which expert of each layer each character went to first"
    >
      ${Array.from(
        {length: numLayers},
        (_, layer) =>
          svg`<rect class="ground" x="0" y=${layer * (NUM_EXPERTS + 1)} width=${NUM_COLUMNS} height=${NUM_EXPERTS} />`,
      )}
      ${shown.flatMap(({experts}, column) =>
        experts.map(
          (expert, layer) =>
            svg`<rect
              x=${column}
              y=${layer * (NUM_EXPERTS + 1) + expert}
              width="1"
              height="1"
              style="fill: var(--expert-${expert})"
            />`,
        ),
      )}
    </svg>
  </figure>`;
}

const visible = (character: string): string => ({' ': '␣', '\n': '¶'})[character] ?? character;

function topCharacters(spoken: readonly Spoken[], layer: number): TemplateResult {
  const counts = eachExpert(() => new Map<string, number>());
  for (const {character, experts} of spoken) {
    const ofExpert = counts[experts[layer]];
    ofExpert?.set(character, (ofExpert.get(character) ?? 0) + 1);
  }
  return html`<ol class="characters" aria-label=${`The characters that the experts of layer ${layer} got most often`}>
    ${counts.map((ofExpert, expert) => {
      const top = [...ofExpert].sort(([, a], [, b]) => b - a).slice(0, NUM_TOP_CHARACTERS);
      return html`<li style="--color: var(--expert-${expert})">
        <b class="chip">${expert}</b><span>${top.map(([character]) => visible(character)).join(' ')}</span>
      </li>`;
    })}
  </ol>`;
}
