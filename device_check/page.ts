/**
 * The page: `?backends=webgpu,webgl&seed=n&seconds=n` chooses, `seconds` for each backend. It begins when it is
 * asked to.
 */
import {backendNames} from './backends';
import type {BackendReport, CheckReport, Report} from './report';
import {checkDevice, SECONDS_OF_BACKEND} from './run';

const parameters = new URLSearchParams(location.search);
const element = <Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  text: string,
  className = '',
): HTMLElementTagNameMap[Name] => Object.assign(document.createElement(name), {textContent: text, className});
const find = <E extends HTMLElement>(selector: string): E => document.querySelector<E>(selector)!;

const button = find<HTMLButtonElement>('#start');
const status = find('#status');
const progress = find<HTMLProgressElement>('progress');

/** The row of each check. */
const rows = new Map<CheckReport, HTMLTableRowElement>();

function showState(row: HTMLTableRowElement, state: string, text: string): void {
  row.className = state;
  row.cells[1].textContent = text;
}

function addBackend({name, device, checks}: BackendReport): void {
  const section = element('section', '');
  const table = element('table', '');
  section.append(element('h2', name), element('p', device.name, 'device'), table);
  for (const check of checks) {
    const row = table.insertRow();
    row.append(Object.assign(element('th', check.title), {scope: 'row'}), element('td', ''));
    showState(row, 'waiting', 'waiting');
    rows.set(check, row);
  }
  find('#backends').append(section);
}

const counted = (count: number) => count.toLocaleString('en-US');

/** What a check has done, in words. */
function wordsOf({passed, failed, seconds, routings}: CheckReport): string {
  const counts = routings == null ? `${passed} passed` : `${counted(routings.done)} of ${counted(routings.wanted)}`;
  return `${failed > 0 ? `${failed} failed, ` : ''}${counts}${seconds > 0 ? `, ${seconds} s` : ''}`;
}

function showCheck(check: CheckReport, isOver: boolean): void {
  const row = rows.get(check)!;
  if (!isOver) {
    showState(row, 'running', 'running …');
    return;
  }
  showState(row, check.failed > 0 ? 'failed' : 'passed', wordsOf(check));
  for (const failure of check.failures) {
    row.cells[1].append(element('code', failure));
  }
}

function showReport(report: Report): void {
  const section = find('#verdict');
  const title = report.passed ? 'This device gives the right results.' : 'This device gives wrong results.';
  const headline = report.backends.length === 0 ? 'No backend started here.' : title;
  section.className = report.passed ? 'passed' : 'failed';
  section.hidden = false;
  const list = element('ul', '');
  list.append(...report.verdict.map((sentence) => element('li', sentence)));
  find('#verdict h2').textContent = headline;
  find('#verdict h2').after(list);
  find<HTMLTextAreaElement>('#report').value = JSON.stringify(report, null, 2);
  section.focus();
}

async function copyReport(): Promise<void> {
  const report = find<HTMLTextAreaElement>('#report');
  report.select();
  try {
    await navigator.clipboard.writeText(report.value);
    find('#copied').textContent = 'Copied.';
  } catch {
    find('#copied').textContent = 'Selected: copy it with the keys of your system.';
  }
}

async function main(): Promise<Report> {
  button.disabled = true;
  progress.hidden = false;
  status.textContent = 'Starting the backends …';
  const wanted = parameters.get('backends')?.split(',') ?? backendNames;
  const seed = Number(parameters.get('seed') ?? crypto.getRandomValues(new Uint32Array(1))[0]);
  const seconds = Number(parameters.get('seconds')) || SECONDS_OF_BACKEND;
  const report = await checkDevice(
    wanted,
    {seed, seconds},
    {
      onStart: (backends, absent, numSpecs) => {
        backends.forEach(addBackend);
        absent.forEach(({name, reason}) => {
          const section = element('section', '', 'absent');
          section.append(element('h2', name), element('p', `Not there. ${reason}`, 'device'));
          find('#backends').append(section);
        });
        progress.max = numSpecs;
      },
      onShaders: ({name}) => {
        status.textContent = `${name}: compiling its shaders …`;
      },
      onProgress: (check, numDone) => {
        progress.value = numDone;
        rows.get(check)!.cells[1].textContent = `running: ${wordsOf(check)} …`;
      },
      onCheck: (backend, check, isOver) => {
        status.textContent = `${backend.name}: ${check.title.toLowerCase()} …`;
        showCheck(check, isOver);
      },
    },
  );
  progress.hidden = true;
  status.textContent = `Done in ${report.seconds} s.`;
  showReport(report);
  return report;
}

/** The report, once there is one; scripts/device_check_page.mjs waits for it. */
const report = new Promise<Report>((resolve, reject) => {
  button.addEventListener('click', () => {
    main().then(resolve, (error: unknown) => {
      status.textContent = `The check ended: ${String(error)}`;
      reject(error instanceof Error ? error : new Error(String(error)));
    });
  });
});
Object.assign(globalThis, {deviceReport: report});
find('#copy').addEventListener('click', () => void copyReport());
button.disabled = false;
