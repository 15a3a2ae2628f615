declare module 'all-specs';
declare module 'docstring-examples' {
  import type * as tf from '../../src/tf';
  export const docstringExamples: Array<{
    file: string;
    run: (
      tfNamespace: typeof tf,
      expectValue: (actual: unknown, expected: unknown) => void,
      layersEntry: object,
    ) => Promise<void>;
  }>;
}
