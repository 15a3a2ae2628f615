/** The backends that a browser offers, and their modules, which are loaded when they are first asked for. */
import * as tf from '@tensorflow/tfjs-core';
import type {BackendName} from './backend_names';

/** What the browser has for a backend. `device` is undefined where it has nothing. */
export type Offer = {name: BackendName; device?: string; isSoftware: boolean};

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|software|basic render/i;

const loaders: Record<BackendName, () => Promise<{prepare(): Promise<void>}>> = {
  cpu: () => import('./backend_cpu'),
  webgl: () => import('./backend_webgl'),
  webgpu: () => import('./backend_webgpu'),
};

export async function startBackend(name: BackendName): Promise<void> {
  const {prepare} = await loaders[name]();
  await prepare();
  if (!(await tf.setBackend(name))) {
    throw new Error(`The backend ${name} does not start here.`);
  }
}

export async function offers(): Promise<Offer[]> {
  return [await webgpuOffer(), webglOffer(), {name: 'cpu', device: 'JavaScript on one core', isSoftware: true}];
}

async function webgpuOffer(): Promise<Offer> {
  const adapter = 'gpu' in navigator ? await navigator.gpu.requestAdapter().catch(() => null) : null;
  if (adapter == null) {
    return {name: 'webgpu', isSoftware: false};
  }
  const {vendor, architecture, description} = adapter.info;
  const device = description !== '' ? description : [vendor, architecture].filter(Boolean).join(' ') || 'a GPU';
  return {name: 'webgpu', device, isSoftware: SOFTWARE.test(`${device} ${architecture}`)};
}

function webglOffer(): Offer {
  const gl = 'OffscreenCanvas' in globalThis ? new OffscreenCanvas(1, 1).getContext('webgl2') : null;
  if (gl == null) {
    return {name: 'webgl', isSoftware: false};
  }
  const names = gl.getExtension('WEBGL_debug_renderer_info');
  const device = String(gl.getParameter(names == null ? gl.RENDERER : names.UNMASKED_RENDERER_WEBGL));
  gl.getExtension('WEBGL_lose_context')?.loseContext();
  return {name: 'webgl', device, isSoftware: SOFTWARE.test(device)};
}

/** The first that is hardware. A net of this size is faster in plain JavaScript than on a GPU that is software. */
export const bestOf = (all: readonly Offer[]): BackendName =>
  all.find(({device, isSoftware}) => device != null && !isSoftware)?.name ?? 'cpu';
