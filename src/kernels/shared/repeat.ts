/** Shader text that is written out `count` times, where a loop of the shader's own would be slower. */
export function repeat(count: number, text: (i: number) => string, separator = '\n'): string {
  return Array.from({length: count}, (_, i) => text(i)).join(separator);
}
