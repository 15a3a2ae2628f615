/** Small parts of which the views are made. */
import {html, type TemplateResult} from 'lit-html';
import {ref} from 'lit-html/directives/ref.js';
import {cutPatches, NUM_PATCHES, PATCH_PIXELS} from '../../examples/digits/digits';

export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`;

/** An image of pixels 0..1 in ink. The style sheet turns it over where the page is dark. */
export function pixelsOn(canvas: HTMLCanvasElement, pixels: ArrayLike<number>): void {
  const context = canvas.getContext('2d')!;
  const image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < pixels.length; i++) {
    image.data[4 * i + 3] = 255 * pixels[i];
  }
  context.putImageData(image, 0, 0);
}

const cut = new WeakMap<Float32Array, Float32Array[]>();

/** The patches of an image, which are the same arrays as long as the image is the same. */
export function patchesOf(pixels: Float32Array): Float32Array[] {
  const known = cut.get(pixels);
  if (known != null) {
    return known;
  }
  const all = cutPatches({pixels, labels: [0]});
  const patches = Array.from({length: NUM_PATCHES}, (_, i) => all.slice(i * PATCH_PIXELS, (i + 1) * PATCH_PIXELS));
  cut.set(pixels, patches);
  return patches;
}

const shown = new WeakMap<HTMLCanvasElement, ArrayLike<number>>();

function showPixels(canvas: HTMLCanvasElement, pixels: ArrayLike<number>): void {
  if (shown.get(canvas) !== pixels) {
    shown.set(canvas, pixels);
    pixelsOn(canvas, pixels);
  }
}

/** A patch of 6 x 6 pixels. */
export const patch = (pixels: ArrayLike<number>, className = ''): TemplateResult => {
  const side = Math.sqrt(pixels.length);
  return html`<canvas
    class="patch ${className}"
    width=${side}
    height=${side}
    aria-hidden="true"
    ${ref((canvas) => canvas != null && showPixels(canvas as HTMLCanvasElement, pixels))}
  ></canvas>`;
};

/** Buttons of which one is pressed. */
export const choices = <T>(
  label: string,
  values: readonly {value: T; text: string}[],
  chosen: T,
  choose: (value: T) => void,
): TemplateResult =>
  html`<div class="choices" role="group" aria-label=${label}>
    ${values.map(
      ({value, text}) =>
        html`<button type="button" aria-pressed=${value === chosen} @click=${() => choose(value)}>${text}</button>`,
    )}
  </div>`;

export const slider = (
  label: string,
  {min, max, step, value, text}: {min: number; max: number; step: number; value: number; text: string},
  change: (value: number) => void,
): TemplateResult =>
  html`<label class="slider">
    <span>${label}</span><output>${text}</output>
    <input
      type="range"
      min=${min}
      max=${max}
      step=${step}
      .value=${String(value)}
      aria-valuetext=${text}
      @input=${(event: Event) => change(Number((event.target as HTMLInputElement).value))}
    />
  </label>`;

export const prefersLessMotion = (): boolean => matchMedia('(prefers-reduced-motion: reduce)').matches;
