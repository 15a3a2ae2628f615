/** The patches of a digit on their way to the experts, as the device sent them. */
import {html, svg, type TemplateResult} from 'lit-html';
import {NUM_PATCHES, PATCH_PIXELS} from '../../examples/digits/digits';
import type {Routed} from '../engine/engine';
import {eachExpert, NUM_EXPERTS} from '../engine/settings';
import type {PageState} from '../state';
import {expertButton} from './expert_tools';
import {patch, patchesOf, percent, prefersLessMotion} from './parts';

const FLIGHT_MS = 520;
/** Rows leave one after the other, in the order of the permuted rows. */
const BETWEEN_ROWS_MS = 45;
const BLANK = new Float32Array(PATCH_PIXELS);
/** In pixels, of an assignment whose weight is 1. */
const WIDEST_LINE = 7;

const middleOf = (i: number, count: number): number => (100 * (i + 0.5)) / count;

/** The rows of an expert, in their order: the assignment of each. */
const rowsOf = ({permutedIdx, expertFirstTokenOffset}: Routed, expert: number): number[] =>
  permutedIdx.slice(expertFirstTokenOffset[expert], expertFirstTokenOffset[expert + 1]);

export function flow(state: PageState, selectExpert: (expert: number) => void): TemplateResult {
  const {pixels, routed, settings} = state;
  const patches = pixels == null ? undefined : patchesOf(pixels);
  const patchOf = (token: number) => patches?.[token] ?? BLANK;
  const topk = routed == null ? settings.topk : routed.topkIds.length / NUM_PATCHES;
  return html`<div class="flow">
    <ol class="tokens" aria-label="The nine patches of the digit">
      ${Array.from({length: NUM_PATCHES}, (_, token) => html`<li>${patch(patchOf(token))}</li>`)}
    </ol>
    <svg class="lines" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
      ${routed == null ? '' : linesOf(routed, topk, state.expert)}
    </svg>
    <ol class="experts" aria-label="The experts, and the patches they got">
      ${eachExpert((expert) => {
        const rows = routed == null ? [] : rowsOf(routed, expert);
        const dropped =
          routed == null
            ? []
            : routed.topkIds.flatMap((id, slot) => (id === expert && routed.keptIds[slot] !== id ? [slot] : []));
        return html`<li class="expert" style="--color: var(--expert-${expert})">
          ${expertButton(settings, expert, {isSelected: state.expert === expert, told: `${rows.length} patches`}, selectExpert)}
          <div class="rows">
            ${rows.map((slot) => {
              const token = Math.floor(slot / topk);
              const weight = routed!.topkWeights[slot];
              return html`<span
                class="row"
                data-token=${token}
                title=${`patch ${token}, weight ${percent(weight, 0)}`}
                style="--weight: ${weight}"
                >${patch(patchOf(token))}</span
              >`;
            })}
            ${dropped.map(
              (slot) =>
                html`<span class="row dropped" title="dropped: no room" style="--weight: 0"
                  >${patch(patchOf(Math.floor(slot / topk)))}</span
                >`,
            )}
          </div>
        </li>`;
      })}
    </ol>
  </div>`;
}

const linesOf = ({topkIds, topkWeights, keptIds}: Routed, topk: number, selected: number | undefined) =>
  topkIds.map((expert, slot) => {
    if (expert < 0) {
      return '';
    }
    const from = middleOf(Math.floor(slot / topk), NUM_PATCHES);
    const to = middleOf(expert, NUM_EXPERTS);
    const isFaint = selected != null && selected !== expert;
    return svg`<path
      d="M0 ${from} C50 ${from} 50 ${to} 100 ${to}"
      class="${keptIds[slot] < 0 ? 'dropped' : ''} ${isFaint ? 'faint' : ''}"
      style="stroke: var(--expert-${expert}); stroke-width: ${Math.max(1, WIDEST_LINE * topkWeights[slot])}px"
      vector-effect="non-scaling-stroke"
    />`;
  });

/** Lets each row fly from its patch to its place among the rows of its expert. */
export function fly(root: ParentNode): void {
  if (prefersLessMotion()) {
    return;
  }
  const patches = Array.from(root.querySelectorAll('.tokens .patch'), (element) => element.getBoundingClientRect());
  const rows = Array.from(root.querySelectorAll<HTMLElement>('.row:not(.dropped)'));
  const places = rows.map((row) => row.getBoundingClientRect());
  rows.forEach((row, r) => {
    const from = patches[Number(row.dataset.token)];
    const to = places[r];
    const [dx, dy] = [from.left - to.left, from.top - to.top];
    const scale = from.width / to.width;
    row.getAnimations().forEach((animation) => animation.cancel());
    row.animate(
      [
        {transform: `translate(${dx}px, ${dy}px) scale(${scale})`, opacity: 0, offset: 0},
        {transform: `translate(${dx}px, ${dy}px) scale(${scale})`, opacity: 1, offset: 0.05},
        {transform: `translate(${dx / 2}px, ${dy / 2}px) scale(${(1 + scale) / 2})`, opacity: 1, offset: 0.5},
        {transform: 'none', opacity: 1, offset: 1},
      ],
      {
        duration: FLIGHT_MS,
        delay: r * BETWEEN_ROWS_MS,
        easing: 'cubic-bezier(0.5, 0, 0.2, 1)',
        fill: 'backwards',
      },
    );
  });
}
