/** Loads and figures of a training. */
import {html, type TemplateResult} from 'lit-html';
import {NUM_EXPERTS} from '../engine/settings';
import {percent} from './parts';

/** The tallest bar of a load, of an even share. */
const MOST_OF_EVEN = 3;

export function loadBars(label: string, load: readonly number[]): TemplateResult {
  const total = Math.max(
    1,
    load.reduce((sum, count) => sum + count, 0),
  );
  return html`<ol class="load" aria-label=${label}>
    ${load.map((count, expert) => {
      const share = count / total;
      const height = Math.min(1, (share * NUM_EXPERTS) / MOST_OF_EVEN);
      return html`<li style="--color: var(--expert-${expert})">
        <span class="column"><span style="transform: scaleY(${height})"></span></span>
        <span>${percent(share, 0)}</span>
        <span class="sr-only">for expert ${expert}</span>
      </li>`;
    })}
  </ol>`;
}

export const figureList = (figures: readonly [name: string, value: string][]): TemplateResult =>
  html`<dl class="figures">
    ${figures.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
