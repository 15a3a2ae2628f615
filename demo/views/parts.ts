/** Small parts of which the views are made. */
import {html, type TemplateResult} from 'lit-html';
import {cutPatches, NUM_PATCHES, PATCH_PIXELS} from '../../examples/digits/digits';

export const percent = (share: number, digits = 1): string => `${(100 * share).toFixed(digits)} %`;

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

const HEADER_SIZE = 54;
const addresses = new WeakMap<ArrayLike<number>, string>();

/**
 * The address of a bitmap, black ink on white paper. A canvas for each patch would be hundreds, which come and go with
 * each answer, and the browser's collection of garbage would block the page for longer than 50 ms.
 */
function addressOf(pixels: ArrayLike<number>): string {
  const known = addresses.get(pixels);
  if (known != null) {
    return known;
  }
  const side = Math.sqrt(pixels.length);
  const rowSize = 4 * Math.ceil((3 * side) / 4);
  const bytes = new Uint8Array(HEADER_SIZE + side * rowSize);
  const header = new DataView(bytes.buffer);
  header.setUint16(0, 0x424d);
  header.setUint32(2, bytes.length, true);
  header.setUint32(10, HEADER_SIZE, true);
  header.setUint32(14, HEADER_SIZE - 14, true);
  header.setInt32(18, side, true);
  // Rows from top to bottom.
  header.setInt32(22, -side, true);
  header.setUint16(26, 1, true);
  header.setUint16(28, 24, true);
  for (let i = 0; i < pixels.length; i++) {
    const at = HEADER_SIZE + Math.floor(i / side) * rowSize + 3 * (i % side);
    bytes.fill(Math.round(255 * (1 - pixels[i])), at, at + 3);
  }
  const address = `data:image/bmp;base64,${btoa(String.fromCharCode(...bytes))}`;
  addresses.set(pixels, address);
  return address;
}

/** A patch of 6 x 6 pixels 0..1. The style sheet turns it over where the page is dark. */
export const patch = (pixels: ArrayLike<number>): TemplateResult =>
  html`<span class="patch" style="background-image: url(${addressOf(pixels)})"></span>`;

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

/** Calls when an element first comes near to what is seen. */
export function whenNear(element: Element, call: () => void): void {
  const observer = new IntersectionObserver(
    (entries) => {
      if (entries.some(({isIntersecting}) => isIntersecting)) {
        observer.disconnect();
        call();
      }
    },
    {rootMargin: '200px'},
  );
  observer.observe(element);
}
