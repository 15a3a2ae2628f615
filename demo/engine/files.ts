/** The files beside the page: trained weights and digits. */
import {type Digits, IMAGE_SIZE} from '../../examples/digits/digits';
import {readSafetensors, safetensorsValues} from '../../src/checkpoints/files/safetensors';
import {weightNames, type WeightValues} from './net';

async function load(name: string): Promise<Response> {
  const response = await fetch(new URL(name, location.href)).catch(() => {
    throw new Error(`${name} does not load: there is no answer from its server.`);
  });
  if (!response.ok) {
    throw new Error(`${name} does not load: the server says ${response.status}.`);
  }
  return response;
}

/** A file that is compressed by itself, because few servers compress files of its kind. */
async function loadPacked(name: string): Promise<Response> {
  const {body} = await load(name);
  return new Response(body!.pipeThrough(new DecompressionStream('gzip')));
}

/** What the language model learned from, or a passage that it did not. */
export const loadText = async (name: string): Promise<string> => (await loadPacked(name)).text();

/** Labels, then pixels of 0..255, a byte each. */
export async function loadDigits(name: string): Promise<Digits> {
  const bytes = new Uint8Array(await (await loadPacked(name)).arrayBuffer());
  const numDigits = bytes.length / (1 + IMAGE_SIZE ** 2);
  return {
    labels: Array.from(bytes.subarray(0, numDigits)),
    pixels: Float32Array.from(bytes.subarray(numDigits), (value) => value / 255),
  };
}

export async function loadWeights(name: string): Promise<WeightValues> {
  const tensors = await readSafetensors(
    await (await load(name)).arrayBuffer().then((buffer) => new Uint8Array(buffer)),
  );
  const values = await Promise.all(weightNames.map((weight) => safetensorsValues(tensors.get(weight)!)));
  return Object.fromEntries(weightNames.map((weight, w) => [weight, values[w]])) as WeightValues;
}
