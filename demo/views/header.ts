/** The head of the page: what it is, and on what it runs. */
import {html, type TemplateResult} from 'lit-html';
import {type BackendName, backendNames} from '../engine/backend_names';
import type {PageState} from '../state';

export type HeaderActions = {useBackend(name: BackendName): Promise<void>};

const REPOSITORY = 'https://www.npmjs.com/package/tfjs-moe';

export function header(state: PageState, {useBackend}: HeaderActions): TemplateResult {
  const {running, offers, status, hasFailed} = state;
  const device = offers.find(({name}) => name === running)?.device;
  return html`<header>
    <p class="brand"><a href=${REPOSITORY}>tfjs-moe</a></p>
    <h1>A mixture of experts, live</h1>
    <p class="lead">
      Draw a digit. A router sends each of its nine patches to the experts that know such patches best. Nothing here is a
      recording: it is computed on your device, and you can take it apart.
    </p>
    <div class="runs-on">
      <span>Runs on</span>
      <div class="choices" role="group" aria-label="Backend">
        ${backendNames.map((name) => {
          const offer = offers.find((one) => one.name === name);
          const isMissing = offers.length > 0 && offer?.device == null;
          return html`<button
            type="button"
            aria-pressed=${running === name}
            ?disabled=${isMissing || (offers.length === 0 && running !== name)}
            @click=${() => useBackend(name)}
          >
            ${name}
          </button>`;
        })}
      </div>
      <span class="status ${hasFailed ? 'failed' : ''}" role="status">${status === '' ? (device ?? '') : status}</span>
    </div>
  </header>`;
}
