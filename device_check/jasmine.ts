/** Jasmine in a page without Karma: its functions are globals. Imported before anything that describes specs. */
import * as jasmineCore from 'jasmine-core/lib/jasmine-core/jasmine.js';

const instance = jasmineCore.core(jasmineCore);
/** Its specs run once, by `execute`. */
export const jasmineEnv = instance.getEnv();
Object.assign(globalThis, jasmineCore.interface(instance, jasmineEnv));
jasmineEnv.configure({random: false});
