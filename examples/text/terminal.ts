/** Text in the colours of its experts, for a terminal. */
import type {RoutedText} from './speaking';
import type {Report} from './training';

/** Backgrounds of xterm's 256 colours that black letters can be read on, one for each expert. */
const COLORS = [210, 215, 227, 156, 123, 111, 183, 250];
const LINE_WIDTH = 100;

/** A text in the colour of an expert. */
export const inColor = (text: string, expert: number): string => `\x1b[30;48;5;${COLORS[expert]}m${text}\x1b[0m`;

/** Lines of a report: the load of each expert of each layer, and which experts the characters of the sample went to. */
export function describeExperts({loads, sample}: Report, hasColors: boolean): string {
  return loads
    .flatMap((load, layer) => [loadLine(load, layer, hasColors), ...textLines(sample, layer, hasColors)])
    .join('\n');
}

/** Lines of a text for each layer, with the experts that its characters went to. */
export function describeText(text: RoutedText, hasColors: boolean): string {
  return text.experts
    .flatMap((_, layer) => [`  experts of layer ${layer}:`, ...textLines(text, layer, hasColors)])
    .join('\n');
}

function loadLine(load: number[], layer: number, hasColors: boolean): string {
  const total = load.reduce((sum, count) => sum + count, 0);
  const shares = load.map((count, expert) => {
    const share = ` ${expert}: ${((100 * count) / total).toFixed(0)} % `;
    return hasColors ? inColor(share, expert) : share;
  });
  return `  load of the experts of layer ${layer}: ${shares.join('')}`;
}

/** A text; without colours, the number of each character's expert is below it. */
function textLines({text, experts}: RoutedText, layer: number, hasColors: boolean): string[] {
  const shown = text.replaceAll('\n', '¶');
  const begins = Array.from({length: Math.ceil(shown.length / LINE_WIDTH)}, (_, i) => i * LINE_WIDTH);
  return begins.flatMap((begin) => {
    const line = shown.slice(begin, begin + LINE_WIDTH);
    const ofLine = experts[layer].slice(begin, begin + LINE_WIDTH);
    return hasColors
      ? [`    ${[...line].map((character, i) => inColor(character, ofLine[i])).join('')}`]
      : [`    ${line}`, `    ${ofLine.join('')}`];
  });
}
