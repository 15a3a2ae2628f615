/** The files beside the page: trained weights and digits. */
import {type Digits, IMAGE_SIZE} from '../../examples/digits/digits';
import {readSafetensors, safetensorsValues} from '../../src/checkpoints/files/safetensors';
import {weightNames, type WeightValues} from './net';

async function load(name: string): Promise<Response> {
  const response = await fetch(new URL(name, location.href));
  if (!response.ok) {
    throw new Error(`${name} does not load: the server says ${response.status}.`);
  }
  return response;
}

/** Labels, then pixels of 0..255, a byte each. The file is compressed, because few servers compress such files. */
export async function loadDigits(name: string): Promise<Digits> {
  const response = await load(name);
  const unpacked = response.body!.pipeThrough(new DecompressionStream('gzip'));
  const bytes = new Uint8Array(await new Response(unpacked).arrayBuffer());
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
