/** The entry of the specs in Node.js, for scripts/check.mjs: one backend, cpu or webgpu on Dawn. */
import {specsAreDone} from './runner/node_globals';
import './runner/backends';
import 'all-specs';

void specsAreDone();
