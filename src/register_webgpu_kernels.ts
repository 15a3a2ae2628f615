/** Registers, on import, the kernels of the webgpu backend, and the gradients. */
import {gradients} from './gradients/gradients';
import {webgpuKernels} from './kernels/webgpu';
import {registerGradients, registerKernels} from './kernels/register';

registerKernels(webgpuKernels, 'webgpu');
registerGradients(gradients);
