/** Shows a shader to its developer: its source on request, and the place where it does not compile. */
import {env} from '@tensorflow/tfjs-core';

/** Prints the source where tfjs's flag WEBGPU_PRINT_SHADER is 'all' or has a part of the program's key. */
export function printOnRequest(key: string, source: string): void {
  const asked = env().getString('WEBGPU_PRINT_SHADER').toLowerCase();
  if (asked === 'all' || (asked !== '' && asked.split(',').some((part) => key.toLowerCase().includes(part)))) {
    console.group(key);
    console.debug(source);
    console.groupEnd();
  }
}

/** Prints what the compiler reports, with the numbered source: the error of the device itself has neither. */
export async function reportCompileErrors(name: string, module: GPUShaderModule, source: string): Promise<void> {
  const {messages} = await module.getCompilationInfo();
  const errors = messages.filter(({type}) => type === 'error');
  if (errors.length > 0) {
    const places = errors.map(({lineNum, linePos, message}) => `${lineNum}:${linePos} ${message}`);
    console.error([`The shader ${name} does not compile.`, ...places, numbered(source)].join('\n'));
  }
}

function numbered(source: string): string {
  const lines = source.split('\n');
  const width = String(lines.length).length;
  return lines.map((line, i) => `${String(i + 1).padStart(width)} | ${line}`).join('\n');
}
