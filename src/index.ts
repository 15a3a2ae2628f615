/**
 * The whole public interface, with all kernels and gradients registered and the chained methods added: `tfjs-moe`.
 *
 * @module tfjs-moe
 */
import './kernels/index';
import './chained_ops';

export * from './contract/kernel_names';
export * from './ops/index';
export {type MoeBackendName, registerMoeKernels} from './kernels/index';
export {version_moe} from './version';
