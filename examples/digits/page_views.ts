/** The views of the page. */
import {type Digits, IMAGE_SIZE, NUM_CLASSES} from './digits';
import type {Epoch, Run, RunResult} from './training';

/** The number of drawn digits. Digits that were read wrongly are drawn first. */
const NUM_DRAWN = 60;
const MOST_WRONG = 30;

function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  className = '',
  ...content: Array<Node | string>
): HTMLElementTagNameMap[Name] {
  const result = document.createElement(name);
  result.className = className;
  result.append(...content);
  return result;
}

const percent = (share: number) => `${(100 * share).toFixed(2)} %`;

/** Shows what the page is doing. */
export function showStatus(text: string): void {
  document.querySelector('#status')!.textContent = text;
}

/** Shows how the run ended. */
export function showEnd(text: string, className: 'done' | 'failed'): void {
  showStatus(text);
  document.querySelector('#status')!.className = className;
  document.querySelector('#activity')!.classList.add('over');
}

/** The view of a run, from its first batch to its expert load. */
export class RunView {
  private readonly progress = element('div');
  private readonly epochs = element('table', 'epochs', rowOf('th', ['epoch', 'loss', 'accuracy', 'time']));
  private readonly section: HTMLElement;

  constructor(run: Run) {
    const title = run.name === 'with' ? 'With the balancing loss' : 'Without the balancing loss';
    const note = element('p', 'note', `loadBalancingLossWeight: ${run.loadBalancingLossWeight}`);
    const track = element('div', 'track', this.progress);
    this.section = element('section', `run ${run.name}`, element('h2', '', title), note, track, this.epochs);
    document.querySelector('#runs')!.append(this.section);
  }

  showProgress(share: number): void {
    this.progress.style.width = `${100 * share}%`;
  }

  addEpoch({epoch, numEpochs, loss, accuracy, seconds}: Epoch): void {
    this.showProgress(epoch / numEpochs);
    this.epochs.append(
      rowOf('td', [`${epoch} of ${numEpochs}`, loss.toFixed(4), percent(accuracy), `${seconds.toFixed(1)} s`]),
    );
  }

  showResult({accuracy, entropy, load}: RunResult): void {
    const figures = element(
      'div',
      'figures',
      element('div', '', element('strong', '', percent(accuracy)), 'held-out accuracy'),
      element('div', '', element('strong', '', entropy.toFixed(3)), 'entropy of the expert load, of uniform'),
    );
    this.section.append(figures, loadChart(load));
  }
}

function rowOf(cell: 'td' | 'th', texts: string[]): HTMLElement {
  return element('tr', '', ...texts.map((text) => element(cell, '', text)));
}

function loadChart(load: number[]): HTMLElement {
  const largest = Math.max(...load, 1);
  const total = Math.max(
    load.reduce((sum, count) => sum + count, 0),
    1,
  );
  const cells = load.flatMap((count, expert) => {
    const bar = element('div', 'bar');
    bar.style.width = `${(100 * count) / largest}%`;
    const share = `${count.toLocaleString('en-US')} · ${((100 * count) / total).toFixed(1)} %`;
    return [element('span', '', `expert ${expert}`), bar, element('span', 'count', share)];
  });
  return element('div', 'load', ...cells);
}

export function showHeldOut(digits: Digits, predictions: number[]): void {
  const {labels} = digits;
  const images = labels.map((_, image) => image);
  const wrong = images.filter((image) => predictions[image] !== labels[image]);
  const right = images.filter((image) => predictions[image] === labels[image]);
  const drawnWrong = wrong.slice(0, MOST_WRONG);
  const drawn = [...drawnWrong, ...right.slice(0, NUM_DRAWN - drawnWrong.length)];
  document.querySelector('#gallery-note')!.textContent =
    `With the balancing loss, ${wrong.length} of ${labels.length} are read wrongly: ${drawnWrong.length} of them here, ` +
    'as “what it is → what was read”, and some that are right.';
  document
    .querySelector('#gallery')!
    .replaceChildren(...drawn.map((image) => figureOf(digits, image, predictions[image])));
  document.querySelector('#confusion')!.replaceChildren(...confusionRows(labels, predictions));
}

function figureOf({pixels, labels}: Digits, image: number, prediction: number): HTMLElement {
  const canvas = element('canvas');
  canvas.width = canvas.height = IMAGE_SIZE;
  const context = canvas.getContext('2d')!;
  const data = context.createImageData(IMAGE_SIZE, IMAGE_SIZE);
  for (let i = 0; i < IMAGE_SIZE ** 2; i++) {
    data.data.set([28, 36, 48, 255 * pixels[image * IMAGE_SIZE ** 2 + i]], 4 * i);
  }
  context.putImageData(data, 0, 0);
  const isRight = prediction === labels[image];
  const caption = isRight ? String(prediction) : `${labels[image]} → ${prediction}`;
  return element('figure', isRight ? '' : 'wrong', element('div', 'digit', canvas), element('figcaption', '', caption));
}

function confusionRows(labels: number[], predictions: number[]): HTMLElement[] {
  const classes = Array.from({length: NUM_CLASSES}, (_, digit) => digit);
  const rows = classes.map((label) => {
    const counts = new Array<number>(NUM_CLASSES).fill(0);
    labels.forEach((actual, i) => {
      if (actual === label) {
        counts[predictions[i]]++;
      }
    });
    const largest = Math.max(...counts, 1);
    const cells = counts.map((count, prediction) => confusionCell(count, count / largest, prediction === label));
    return element('tr', '', element('th', '', String(label)), ...cells);
  });
  const head = rowOf('th', ['', ...classes.map(String)]);
  return [element('caption', '', 'Rows: what it is; columns: what was read'), head, ...rows];
}

function confusionCell(count: number, share: number, isRight: boolean): HTMLElement {
  const cell = element('td', isRight ? 'right' : '', count > 0 ? String(count) : '');
  cell.style.setProperty('--strength', String(isRight ? 0.1 + 0.3 * share : Math.min(0.7, 10 * share)));
  return cell;
}
