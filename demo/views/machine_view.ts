/** The section that shows how the device does it. */
import {html, type TemplateResult} from 'lit-html';
import {NUM_PATCHES} from '../../examples/digits/digits';
import type {Measurement} from '../engine/engine';
import type {PageState} from '../state';
import {patch, patchesOf, percent} from './parts';

export type MachineActions = {permute(): void; measure(): void};

const ROW_HEIGHT = 24;

export function machineView(state: PageState, actions: MachineActions): TemplateResult {
  return html`<section id="machine" aria-labelledby="machine-title">
    <div class="heading">
      <h2 id="machine-title">The machine</h2>
      <p>
        A GPU is fast where the rows of an expert lie side by side. So the rows are permuted, each expert multiplies its
        own stretch, and the results are put back. No value comes back to JavaScript in between.
      </p>
    </div>
    <div class="machine">${permutation(state, actions)} ${measured(state, actions)} ${backends(state)}</div>
  </section>`;
}

function permutation({routed, pixels, isPermuted}: PageState, {permute}: MachineActions): TemplateResult {
  if (routed == null || pixels == null) {
    return html`<div class="panel"><p class="note">Draw a digit above.</p></div>`;
  }
  const {topkIds, topkWeights, permutedIdx, expertFirstTokenOffset} = routed;
  const numSlots = topkIds.length;
  const topk = numSlots / NUM_PATCHES;
  const patches = patchesOf(pixels);
  return html`<div class="panel">
    <div class="tools">
      <h3>moePermute</h3>
      <button type="button" @click=${() => permute()}>
        ${isPermuted ? 'Unpermute' : 'Permute'}
      </button>
    </div>
    <ol
      class="permutation"
      style="height: ${numSlots * ROW_HEIGHT}px"
      aria-label=${isPermuted ? 'Rows in the order of experts' : 'Rows in the order of tokens'}
    >
      ${topkIds.map((expert, slot) => {
        const place = isPermuted ? permutedIdx.indexOf(slot) : slot;
        const token = Math.floor(slot / topk);
        const hasRow = permutedIdx.indexOf(slot) >= 0;
        return html`<li
          class=${hasRow ? '' : 'dropped'}
          style="--color: var(--expert-${Math.max(0, expert)}); transform: translateY(${
            (place < 0 ? slot : place) * ROW_HEIGHT
          }px); opacity: ${hasRow ? 1 : 0.3}"
        >
          ${patch(patches[token])}
          <span>patch ${token}</span>
          <b class="chip">${expert < 0 ? '–' : expert}</b>
          <span class="number">${percent(topkWeights[slot], 0)}</span>
        </li>`;
      })}
    </ol>
    <p class="array"><span>topkIds</span> ${topkIds.join(' ')}</p>
    <p class="array"><span>permutedIdx</span> ${permutedIdx.join(' ')}</p>
    <p class="array"><span>expertFirstTokenOffset</span> ${expertFirstTokenOffset.join(' ')}</p>
  </div>`;
}

const timesOf = ({backend, hasDeviceTimes}: Measurement): string => {
  if (backend === 'cpu') {
    return 'JavaScript has no launches.';
  }
  return hasDeviceTimes ? 'Times are of the device.' : 'This browser gives pages no times of the device.';
};

const milliseconds = (value: number): string => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;

function measured({measurement, isMeasuring, running}: PageState, {measure}: MachineActions): TemplateResult {
  return html`<div class="panel">
    <div class="tools">
      <h3>Launches and times</h3>
      <button type="button" ?disabled=${isMeasuring || running == null} @click=${() => measure()}>
        ${isMeasuring ? 'Measuring …' : 'Measure'}
      </button>
    </div>
    ${
      measurement == null
        ? html`<p class="note">Runs the 500 held-out digits, 4,500 patches, and times each kernel on ${running ?? '…'}.</p>`
        : html`<table>
            <caption>
              4,500 patches on ${measurement.backend}.
              ${timesOf(measurement)}
            </caption>
            <thead>
              <tr><th scope="col">kernel</th><th scope="col">launches</th><th scope="col">time</th></tr>
            </thead>
            <tbody>
              ${measurement.kernels.map(
                ({name, launches, time}) =>
                  html`<tr class=${name.startsWith('Moe') ? 'ours' : ''}>
                    <td>${name}</td><td>${launches ?? '–'}</td><td>${time == null ? '–' : milliseconds(time)}</td>
                  </tr>`,
              )}
            </tbody>
          </table>
          ${comparison(measurement.comparison)}`
    }
  </div>`;
}

function comparison({
  numTokens,
  hiddenSize,
  expertSize,
  numExperts,
  topk,
  mixture,
  dense,
}: {
  numTokens: number;
  hiddenSize: number;
  expertSize: number;
  numExperts: number;
  topk: number;
  mixture: number;
  dense: number;
}): TemplateResult {
  const largest = Math.max(mixture, dense);
  const row = (name: string, time: number) =>
    html`<li>
      <span>${name}</span><span class="track"><span style="width: ${(100 * time) / largest}%"></span></span>
      <span class="number">${milliseconds(time)}</span>
    </li>`;
  return html`<h3>Dense beside mixture</h3>
    <ol class="bars compare">
      ${row(`${topk} of ${numExperts} experts`, mixture)} ${row(`all ${numExperts} experts`, dense)}
    </ol>
    <p class="note">
      ${numTokens} tokens of ${hiddenSize} numbers, experts of ${expertSize}; the median of five runs each, from the call
      to the values. The mixture ${mixture < dense ? `takes ${percent(mixture / dense, 0)} of the time` : 'is not faster here'}.
    </p>`;
}

function backends({offers, running}: PageState): TemplateResult {
  const hasWebGPU = offers.some(({name, device}) => name === 'webgpu' && device != null);
  return html`<div class="panel wide">
    <h3>What this device offers</h3>
    <dl class="offers">
      ${offers.map(
        ({name, device, isSoftware}) =>
          html`<div>
            <dt>${name}${name === running ? ', in use' : ''}</dt>
            <dd>${device == null ? 'not here' : `${device}${isSoftware && name !== 'cpu' ? ': a GPU that is software' : ''}`}</dd>
          </div>`,
      )}
    </dl>
    ${
      offers.length > 0 && !hasWebGPU
        ? html`<p class="note">
          No WebGPU? Chrome and Edge have it from version 113 on, Safari from 26, Firefox from 141 on Windows and from 145
          on Macs with Apple silicon. A page needs https or localhost, and <code>chrome://gpu</code> or
          <code>about:support</code> says what is missing. All here works without it, on WebGL or in plain JavaScript.
        </p>`
        : ''
    }
  </div>`;
}
