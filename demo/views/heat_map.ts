/** A heat map of characters x layers x experts. */
import {html, type TemplateResult} from 'lit-html';
import {ref} from 'lit-html/directives/ref.js';
import {eachExpert, NUM_EXPERTS} from '../engine/settings';
import type {Spoken} from '../state';

/** Columns: the last characters. */
const NUM_COLUMNS = 120;
/** Of pixels, so that edges are sharp on dense screens. */
const SCALE = 4;
const LAYER_ROWS = NUM_EXPERTS + 1;

let redrawLast: (() => void) | undefined;
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => redrawLast?.());

export function heatMap(spoken: readonly Spoken[], numLayers: number): TemplateResult {
  return html`<figure class="heat-map">
    <figcaption><span>The last ${NUM_COLUMNS} characters, by the experts of layers 0 to ${numLayers - 1}</span></figcaption>
    <canvas
      width=${SCALE * NUM_COLUMNS}
      height=${SCALE * (numLayers * LAYER_ROWS - 1)}
      role="img"
      aria-label="Which experts of each layer each character went to"
      ${ref((element) => {
        if (element != null) {
          redrawLast = () => draw(element as HTMLCanvasElement, spoken, numLayers);
          redrawLast();
        }
      })}
    ></canvas>
  </figure>`;
}

/** A column for each character, and a row for each expert of each layer. A weight is how much colour there is. */
function draw(canvas: HTMLCanvasElement, spoken: readonly Spoken[], numLayers: number): void {
  const context = canvas.getContext('2d')!;
  const style = getComputedStyle(canvas);
  const colors = eachExpert((expert) => style.getPropertyValue(`--expert-${expert}`));
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = style.getPropertyValue('--line');
  context.globalAlpha = 0.6;
  for (let layer = 0; layer < numLayers; layer++) {
    context.fillRect(0, SCALE * layer * LAYER_ROWS, canvas.width, SCALE * NUM_EXPERTS);
  }
  spoken.slice(-NUM_COLUMNS).forEach(({routes}, column) =>
    routes.forEach(({experts, weights}, layer) =>
      experts.forEach((expert, k) => {
        context.fillStyle = colors[expert];
        context.globalAlpha = Math.max(0.15, weights[k]);
        context.fillRect(SCALE * column, SCALE * (layer * LAYER_ROWS + expert), SCALE, SCALE);
      }),
    ),
  );
}
