/** The section that shows what each expert has come to know. */
import {html, type TemplateResult} from 'lit-html';
import {guard} from 'lit-html/directives/guard.js';
import type {PageState} from '../state';
import {patch, percent} from './parts';

export function expertsView({experts}: PageState): TemplateResult {
  const total = (experts ?? []).reduce((sum, {numPatches}) => sum + numPatches, 0);
  return html`<section id="experts" aria-labelledby="experts-title">
    <div class="heading">
      <h2 id="experts-title">What an expert is</h2>
      <p>
        Nobody told the experts what to learn. Here are the held-out patches that each got with the most weight, after
        the mean of all that it got.
      </p>
    </div>
    <ol class="gallery">
      ${guard([experts], () =>
        (experts ?? []).map(
          ({patches, mean, numPatches}, expert) =>
            html`<li style="--color: var(--expert-${expert})">
            <b class="chip">${expert}</b>
            <span class="mean" title="the mean of its patches">${patch(mean)}</span>
            <span class="top" role="img" aria-label=${`The top patches of expert ${expert}`}
              >${patches.map((pixels) => patch(pixels))}</span
            >
            <span class="number">${percent(numPatches / Math.max(1, total), 0)}</span>
          </li>`,
        ),
      )}
    </ol>
  </section>`;
}
