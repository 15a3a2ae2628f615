/** Which backends the browser has, and what they run on. */
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import '@tensorflow/tfjs-backend-webgpu';
import {setWasmPaths} from '@tensorflow/tfjs-backend-wasm';
import type {TestEnv} from '@tensorflow/tfjs-core/dist/jasmine_util';
import * as tf from '../src/tf';
import {keepPolling} from '../test/runner/firefox_polling';
import {testedBackends} from '../test/runner/tested_backends';

/** What a backend runs on, for the report. */
export type Device = {name: string; isSoftware: boolean; details: Record<string, unknown>};
export type StartedBackend = {env: TestEnv; device: Device};
export type AbsentBackend = {name: string; reason: string};

/** The host runs on wasm, or on cpu where wasm does not start. */
export const backendNames = ['webgpu', 'webgl', 'wasm', 'cpu'];

setWasmPaths('./');

const isSoftware = (name: string) => /swiftshader|llvmpipe|lavapipe|software|basic render/i.test(name);

/** The names of a device's limits are on its prototype. */
function limitsOf(limits: GPUSupportedLimits): Record<string, number> {
  const names = Object.keys(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(limits)));
  const entries = names.map((name) => [name, (limits as unknown as Record<string, unknown>)[name]]);
  return Object.fromEntries(entries.filter(([, value]) => typeof value === 'number'));
}

async function webgpuDevice(): Promise<Device> {
  const {device} = tf.backend() as WebGPUBackend;
  keepPolling(device);
  const adapter = (await navigator.gpu.requestAdapter({powerPreference: 'high-performance'}))!;
  const {vendor, architecture, device: model, description} = adapter.info;
  const words = [vendor, architecture, model, description].filter((word) => word !== '');
  const name = words.join(', ') || 'a device that the browser does not name';
  return {
    name,
    isSoftware: adapter.info.isFallbackAdapter === true || isSoftware(name),
    details: {
      adapter: {vendor, architecture, device: model, description},
      features: [...device.features],
      limits: limitsOf(device.limits),
    },
  };
}

function webglDevice(): Device {
  const {gl} = (tf.backend() as MathBackendWebGL).gpgpu;
  const debug = gl.getExtension('WEBGL_debug_renderer_info');
  const name = String(gl.getParameter(debug?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER));
  const flags = ['WEBGL_VERSION', 'WEBGL_MAX_TEXTURE_SIZE', 'WEBGL_RENDER_FLOAT32_ENABLED', 'WEBGL_FENCE_API_ENABLED'];
  return {
    name,
    isSoftware: isSoftware(name),
    details: {
      version: String(gl.getParameter(gl.VERSION)),
      flags: Object.fromEntries(flags.map((flag) => [flag, tf.env().get(flag)])),
    },
  };
}

function hostDevice(): Device {
  const cores = navigator.hardwareConcurrency;
  return {name: `the host, ${cores} cores`, isSoftware: false, details: {cores}};
}

/** Why WebGPU cannot start, before tfjs tries. */
async function reasonAgainstWebGPU(): Promise<string | undefined> {
  if (!('gpu' in navigator)) {
    return isSecureContext
      ? 'This browser has no WebGPU.'
      : 'WebGPU needs a page of https or localhost, and this page is of neither.';
  }
  const adapter = await navigator.gpu.requestAdapter({powerPreference: 'high-performance'});
  return adapter == null ? 'WebGPU has no adapter here: no GPU, or one that the browser does not use.' : undefined;
}

/** Starts a backend. tfjs has no word for why one does not start. */
export async function startBackend(name: string): Promise<StartedBackend | AbsentBackend> {
  const env = testedBackends.find((tested) => tested.name === name)!;
  const reason = name === 'webgpu' ? await reasonAgainstWebGPU() : undefined;
  if (reason != null) {
    return {name, reason};
  }
  tf.env().setFlags({...env.flags, WEBGL_USE_SHAPES_UNIFORMS: true});
  const isStarted = await tf.setBackend(env.backendName).catch(() => false);
  if (!isStarted) {
    return {name, reason: name === 'webgl' ? 'This browser gives the page no WebGL 2.' : 'It does not start here.'};
  }
  const device = name === 'webgpu' ? await webgpuDevice() : name === 'webgl' ? webglDevice() : hostDevice();
  return {env, device};
}
