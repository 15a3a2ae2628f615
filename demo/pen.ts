/** From strokes of a pen to an image like those that the net has learned. */
import {IMAGE_SIZE} from '../examples/digits/digits';
import {SIDE, type Stroke} from './state';

/** The digits of MNIST fill a box of this size, and their centre of mass is the middle of the image. */
const BOX_SIZE = 20;
const LINE_WIDTH = 2.4;

/** Draws strokes, each point moved and scaled by `place`. */
export function drawStrokes(
  context: CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D,
  strokes: readonly Stroke[],
  lineWidth: number,
  place: (point: {x: number; y: number}) => [number, number],
): void {
  context.lineWidth = lineWidth;
  context.lineCap = 'round';
  context.lineJoin = 'round';
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...place(stroke[0]));
    // A point alone is a dot.
    (stroke.length === 1 ? stroke : stroke.slice(1)).forEach((point) => context.lineTo(...place(point)));
    context.stroke();
  }
}

let canvas: HTMLCanvasElement | undefined;

/** The pixels 0..1 of an image of IMAGE_SIZE x IMAGE_SIZE. */
export function imageOf(strokes: readonly Stroke[]): Float32Array {
  canvas ??= Object.assign(document.createElement('canvas'), {width: IMAGE_SIZE, height: IMAGE_SIZE});
  const context = canvas.getContext('2d', {willReadFrequently: true})!;
  const points = strokes.flat();
  const [xs, ys] = [points.map(({x}) => x), points.map(({y}) => y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [width, height] = [Math.max(...xs) - left, Math.max(...ys) - top];
  // The line adds its width to the box. A dot is not blown up to a whole box.
  const scale = (BOX_SIZE - LINE_WIDTH) / Math.max(width, height, SIDE / 4);
  const render = (dx: number, dy: number): Float32Array => {
    context.clearRect(0, 0, IMAGE_SIZE, IMAGE_SIZE);
    drawStrokes(context, strokes, LINE_WIDTH, ({x, y}) => [
      (x - left - width / 2) * scale + dx,
      (y - top - height / 2) * scale + dy,
    ]);
    const {data} = context.getImageData(0, 0, IMAGE_SIZE, IMAGE_SIZE);
    return Float32Array.from({length: IMAGE_SIZE ** 2}, (_, i) => data[4 * i + 3] / 255);
  };
  const middle = IMAGE_SIZE / 2;
  const image = render(middle, middle);
  let [mass, atX, atY] = [0, 0, 0];
  image.forEach((value, i) => {
    mass += value;
    atX += value * ((i % IMAGE_SIZE) + 0.5);
    atY += value * (Math.floor(i / IMAGE_SIZE) + 0.5);
  });
  return mass === 0 ? image : render(2 * middle - atX / mass, 2 * middle - atY / mass);
}
