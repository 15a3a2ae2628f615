/** What a visitor does with the experts of a layer, of digits or of text. */
import {html, type TemplateResult} from 'lit-html';
import {type Edits, isAnyEdited, isEdited, noEdits, NUM_EXPERTS} from '../engine/settings';

const LEAST_BOOST = 0.125;
const MOST_BOOST = 8;

/** What is said of an expert besides its number. */
export function editOf({silenced, boosts, sources}: Edits, expert: number): string {
  const words = [
    silenced[expert] ? 'silent' : '',
    sources[expert] === expert ? '' : `= ${sources[expert]}`,
    boosts[expert] === 1 ? '' : `× ${boosts[expert]}`,
  ];
  return words.filter((word) => word !== '').join(' ');
}

/** The button of an expert; `told` is what it is called besides its number. */
export function expertButton(
  edits: Edits,
  expert: number,
  {isSelected, told}: {isSelected: boolean; told: string},
  select: (expert: number) => void,
): TemplateResult {
  const edit = editOf(edits, expert);
  return html`<button
    type="button"
    class="name ${edits.silenced[expert] ? 'silent' : ''}"
    style="--color: var(--expert-${expert})"
    aria-pressed=${isSelected}
    aria-label=${`Expert ${expert}${edit === '' ? '' : `, ${edit}`}: ${told}`}
    data-edited=${isEdited(edits, expert)}
    @click=${() => select(expert)}
  >
    <b>${expert}</b><small>${edit}</small>
  </button>`;
}

/** Silences, boosts and clones the selected expert. `mostSilenced`: how many may be silent at once. */
export function expertTools(
  edits: Edits,
  expert: number | undefined,
  change: (edits: Partial<Edits>) => void,
  mostSilenced = NUM_EXPERTS,
): TemplateResult {
  const restore = html`<button type="button" ?disabled=${!isAnyEdited(edits)} @click=${() => change(noEdits())}>
    All as trained
  </button>`;
  if (expert == null) {
    return html`<div class="edit"><p>Click an expert to silence, boost or clone it.</p>
      ${restore}</div>`;
  }
  const {silenced, boosts, sources} = edits;
  const replaced = <T>(values: readonly T[], at: number, value: T): T[] => values.map((v, e) => (e === at ? value : v));
  const next = (expert + 1) % NUM_EXPERTS;
  const isFull = !silenced[expert] && silenced.filter((isSilenced) => isSilenced).length >= mostSilenced;
  const boost = (factor: number) =>
    change({
      boosts: replaced(boosts, expert, Math.min(MOST_BOOST, Math.max(LEAST_BOOST, boosts[expert] * factor))),
    });
  return html`<div class="edit" style="--color: var(--expert-${expert})">
    <p><b class="chip">${expert}</b></p>
    <button
      type="button"
      aria-pressed=${silenced[expert]}
      ?disabled=${isFull}
      @click=${() => change({silenced: replaced(silenced, expert, !silenced[expert])})}
    >
      Silence
    </button>
    <button type="button" @click=${() => boost(2)}>Boost × 2</button>
    <button type="button" @click=${() => boost(0.5)}>× ½</button>
    <button
      type="button"
      aria-pressed=${sources[next] === expert}
      @click=${() => change({sources: replaced(sources, next, sources[next] === expert ? next : expert)})}
    >
      Clone over ${next}
    </button>
    ${restore}
  </div>`;
}
