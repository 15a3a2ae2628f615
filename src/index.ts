/** Everything public, with all kernels and gradients registered and the chained methods added: `tfjs-moe`. */
import './register_all_kernels';
import './chained_ops';

export * from './kernel_types';
export * from './ops/index';
export {type MoeBackendName, registerMoeKernels} from './register_all_kernels';
export {version_moe} from './version';
