import {engine, OP_SCOPE_SUFFIX} from '@tensorflow/tfjs-core';

/** The op that runs the kernel, for errors; the kernel itself if no op runs it, as in a gradient. */
export function runningOpName(kernelName: string): string {
  const scopeName = engine().state.activeScope?.name ?? '';
  return scopeName.endsWith(OP_SCOPE_SUFFIX) ? scopeName.slice(0, -OP_SCOPE_SUFFIX.length) : kernelName;
}
