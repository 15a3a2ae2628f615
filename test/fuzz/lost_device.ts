/**
 * The device is lost and comes back. Ops report the loss until the backend is restarted; then everything is as before.
 */
import * as fc from 'fast-check';
import * as tf from '../../src/tf';
import type {Attempt} from './attempt';
import {startBackend, webglBackend, webgpuBackend} from './backend';
import {assertThrows} from './call';

const x = [[1, 2], [3, 4]];
const ids = [[0], [1]];
const calls: Array<() => tf.TensorContainer> = [
  () => tf.moePermute(x, ids, 2),
  () => tf.moeAlignBlockSize(ids, 2, 2),
  () => tf.moeUnpermute(x, ids, ids),
  () => tf.moeSum([x]),
  () => tf.moeTopk(x, 1),
  () => tf.moeGroupedMatMul(x, [x], [0, 2]),
  () => tf.fusedMoe(x, [x], [[[1], [1]]], [[1], [2]], 1),
];

function assertSaysSo(): void {
  const {numTensors} = tf.memory();
  for (const call of calls) {
    assertThrows(call, 'is lost');
  }
  if (tf.moePermuteUnpermuteSupported()) {
    throw new Error('moePermuteUnpermuteSupported() is true on a lost device');
  }
  if (tf.memory().numTensors !== numTensors) {
    throw new Error(`numTensors was ${numTensors} before the errors, and is ${tf.memory().numTensors}`);
  }
}

async function loseContext(): Promise<void> {
  const {gl} = webglBackend().gpgpu;
  const {canvas} = gl;
  const context = gl.getExtension('WEBGL_lose_context')!;
  const event = (type: string) => new Promise((resolve) => canvas.addEventListener(type, resolve, {once: true}));
  const lost = event('webglcontextlost');
  context.loseContext();
  await lost;
  assertSaysSo();
  const restored = event('webglcontextrestored');
  // Not in the event that reports the loss.
  setTimeout(() => context.restoreContext());
  await restored;
  assertSaysSo();
}

async function loseDevice(): Promise<void> {
  const {device} = webgpuBackend();
  device.destroy();
  await device.lost;
  assertSaysSo();
}

async function check(): Promise<void> {
  const backendName = tf.getBackend();
  if (backendName !== 'webgl' && backendName !== 'webgpu') {
    return;
  }
  try {
    await (backendName === 'webgl' ? loseContext() : loseDevice());
  } finally {
    await startBackend(backendName);
  }
}

export const lostDevice: fc.Arbitrary<Attempt> = fc.constant({name: 'lost device', input: {}, numAssignments: 0, check});
