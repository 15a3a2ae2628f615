/** The field to draw in. */
import {html, type TemplateResult} from 'lit-html';
import {ref} from 'lit-html/directives/ref.js';
import {IMAGE_SIZE} from '../../examples/digits/digits';
import {drawStrokes} from '../pen';
import {type PageState, SIDE, type Stroke} from '../state';

const LINE_WIDTH = 15;
/** Points that are nearer to the last one than this are left out, so that addresses stay short. */
const NEAREST = 3;

export type PadActions = {
  draw(strokes: Stroke[], isDone: boolean): void;
  clear(): void;
  /** The next held-out digit, or the next of a class. */
  sample(digit?: number): void;
};

let strokes: Stroke[] = [];
let isDown = false;

export function pad(state: PageState, actions: PadActions): TemplateResult {
  const {picture, pixels} = state;
  if (!isDown) {
    strokes = 'strokes' in picture ? picture.strokes : [];
  }
  const isDrawn = 'strokes' in picture;
  return html`<div class="pad">
    <canvas
      id="pad"
      width=${2 * SIDE}
      height=${2 * SIDE}
      tabindex="0"
      role="img"
      aria-label="A field to draw a digit in. The keys 0 to 9 bring a written digit, and Delete clears the field."
      ${ref((canvas) => canvas != null && paint(canvas as HTMLCanvasElement, isDrawn, pixels))}
      @pointerdown=${(event: PointerEvent) => begin(event, actions)}
      @pointermove=${(event: PointerEvent) => move(event, actions)}
      @pointerup=${() => end(actions)}
      @pointercancel=${() => end(actions)}
      @keydown=${(event: KeyboardEvent) => press(event, actions)}
    ></canvas>
    <p class="hint" aria-hidden="true">${isDrawn && strokes.length === 0 ? 'Draw a digit here' : ''}</p>
    <div class="tools">
      <button type="button" @click=${() => actions.clear()}>Clear</button>
      <button type="button" @click=${() => actions.sample()}>Another digit</button>
    </div>
  </div>`;
}

const small = Object.assign(document.createElement('canvas'), {width: IMAGE_SIZE, height: IMAGE_SIZE});

function paint(canvas: HTMLCanvasElement, isDrawn: boolean, pixels: Float32Array | undefined): void {
  const context = canvas.getContext('2d')!;
  context.clearRect(0, 0, canvas.width, canvas.height);
  const scale = canvas.width / SIDE;
  if (isDrawn) {
    drawStrokes(context, strokes, LINE_WIDTH * scale, ({x, y}) => [x * scale, y * scale]);
  } else if (pixels != null) {
    pixelsOn(small, pixels);
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
}

/** An image of pixels 0..1 in ink. The style sheet turns it over where the page is dark. */
function pixelsOn(canvas: HTMLCanvasElement, pixels: ArrayLike<number>): void {
  const context = canvas.getContext('2d')!;
  const image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < pixels.length; i++) {
    image.data[4 * i + 3] = 255 * pixels[i];
  }
  context.putImageData(image, 0, 0);
}

function pointOf({target, clientX, clientY}: PointerEvent): {x: number; y: number} {
  const {left, top, width, height} = (target as HTMLElement).getBoundingClientRect();
  const within = (value: number) => Math.round(Math.min(SIDE, Math.max(0, SIDE * value)));
  return {x: within((clientX - left) / width), y: within((clientY - top) / height)};
}

function begin(event: PointerEvent, actions: PadActions): void {
  event.preventDefault();
  (event.target as HTMLElement).setPointerCapture(event.pointerId);
  isDown = true;
  strokes = [...strokes, [pointOf(event)]];
  actions.draw(strokes, false);
}

function move(event: PointerEvent, actions: PadActions): void {
  if (!isDown) {
    return;
  }
  const stroke = strokes[strokes.length - 1];
  const [point, last] = [pointOf(event), stroke[stroke.length - 1]];
  if (Math.hypot(point.x - last.x, point.y - last.y) >= NEAREST) {
    stroke.push(point);
    actions.draw(strokes, false);
  }
}

function end(actions: PadActions): void {
  if (isDown) {
    isDown = false;
    actions.draw(strokes, true);
  }
}

function press(event: KeyboardEvent, actions: PadActions): void {
  if (event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  if (/^\d$/.test(event.key)) {
    actions.sample(Number(event.key));
  } else if (event.key === 'Delete' || event.key === 'Backspace') {
    actions.clear();
    event.preventDefault();
  }
}
