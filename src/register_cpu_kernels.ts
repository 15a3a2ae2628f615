/** Registers, on import, the host kernels for the backends they serve, and the gradients. */
import {gradients} from './gradients/gradients';
import {cpuKernels} from './kernels/cpu';
import {registerGradients, registerKernels} from './kernels/register';

for (const backendName of ['cpu', 'wasm', 'tensorflow']) {
  registerKernels(cpuKernels, backendName);
}
registerGradients(gradients);
