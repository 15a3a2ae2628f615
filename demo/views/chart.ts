/** Lines over the steps of a training, by uPlot, which is loaded when the first chart comes near to what is seen. */
import {html, type TemplateResult} from 'lit-html';
import {ref} from 'lit-html/directives/ref.js';
import type uPlot from 'uplot';
import {whenNear} from './parts';

export type ChartOptions = {
  label: string;
  lines: {name: string; color: string; values: readonly (number | undefined)[]}[];
  steps: readonly number[];
  /** The range of values; the largest value is found where it is left out. */
  max?: number;
  /** Steps at which a setting was changed. */
  marks: readonly {step: number; text: string}[];
};

const HEIGHT = 150;

type Drawn = {element: HTMLElement; options: ChartOptions; plot?: uPlot};
const charts = new Map<string, Drawn>();

/** A chart of a key, which stays the same chart from call to call. */
export function chart(key: string, options: ChartOptions): TemplateResult {
  const drawn = charts.get(key);
  if (drawn != null) {
    const isNew = drawn.options.steps.length !== options.steps.length;
    drawn.options = options;
    if (isNew) {
      drawn.plot?.setData(dataOf(options));
    }
  }
  return html`<figure class="chart">
    <figcaption>
      ${options.lines.map(({name, color}) => html`<span><i style="background: ${color}"></i>${name}</span>`)}
    </figcaption>
    <div role="img" aria-label=${options.label} ${ref((element) => mount(key, element as HTMLElement, options))}></div>
  </figure>`;
}

const dataOf = ({steps, lines}: ChartOptions): uPlot.AlignedData => [
  [...steps],
  ...lines.map(({values}) => [...values] as (number | undefined)[]),
];

function mount(key: string, element: HTMLElement | undefined, options: ChartOptions): void {
  if (element == null || charts.get(key)?.element === element) {
    return;
  }
  const drawn: Drawn = {element, options};
  charts.set(key, drawn);
  whenNear(element, () => void plotIn(drawn));
}

async function plotIn(drawn: Drawn): Promise<void> {
  const {default: UPlot} = await import('uplot');
  const {element} = drawn;
  const plot = new UPlot(plotOptions(drawn), dataOf(drawn.options), element);
  drawn.plot = plot;
  new ResizeObserver(() => plot.setSize({width: element.clientWidth, height: HEIGHT})).observe(element);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => plot.redraw(false));
}

function plotOptions(drawn: Drawn): uPlot.Options {
  const {element, options} = drawn;
  const colorOf = (name: string) => () => getComputedStyle(element).getPropertyValue(name);
  const axis: uPlot.Axis = {
    stroke: colorOf('--quiet'),
    grid: {stroke: colorOf('--line'), width: 1},
    ticks: {show: false},
    font: '11px system-ui, sans-serif',
    gap: 4,
  };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    cursor: {show: false},
    legend: {show: false},
    scales: {x: {time: false}, y: {range: (_, __, max) => [0, options.max ?? Math.max(0.5, max * 1.05)]}},
    axes: [
      {...axis, size: 24, space: 60},
      {...axis, size: 34, space: 36},
    ],
    series: [
      {},
      ...options.lines.map(({name, color}) => ({
        label: name,
        stroke: () => getComputedStyle(element).getPropertyValue(color.slice(4, -1)),
        width: 2,
        points: {show: false},
        spanGaps: true,
      })),
    ],
    hooks: {draw: [(plot) => drawMarks(plot, drawn.options, colorOf('--quiet')())]},
  };
}

function drawMarks(plot: uPlot, {marks}: ChartOptions, color: string): void {
  const {ctx: context, bbox} = plot;
  context.save();
  context.strokeStyle = color;
  context.fillStyle = color;
  context.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  context.textAlign = 'left';
  context.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const {step, text} of marks) {
    const x = plot.valToPos(step, 'x', true);
    context.beginPath();
    context.moveTo(x, bbox.top);
    context.lineTo(x, bbox.top + bbox.height);
    context.stroke();
    context.fillText(text, x + 4 * devicePixelRatio, bbox.top + 12 * devicePixelRatio);
  }
  context.restore();
}
