/** What the page calls of Jasmine's file for browsers. */
declare module 'jasmine-core/lib/jasmine-core/jasmine.js' {
  type Env = jasmine.Env & {execute(): Promise<unknown>};
  type Instance = {getEnv(): Env};
  type JasmineCore = {
    core(required: JasmineCore): Instance;
    interface(instance: Instance, env: Env): Record<string, unknown>;
  };
  export const core: JasmineCore['core'];
  const interfaceOf: JasmineCore['interface'];
  export {interfaceOf as interface};
}

/** The groups of checks.json. `load` describes the specs of a group. */
declare module 'device-check-specs' {
  export const specFileGroups: Array<{title: string; load: () => void}>;
}
