/** The entry of the specs in Node.js, for scripts/check.mjs: one backend, cpu or webgpu on Dawn. */
import {specsAreDone} from './support/node_globals';
import './support/backends';
import 'all-specs';

void specsAreDone();
