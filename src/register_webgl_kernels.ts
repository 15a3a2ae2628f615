/** Registers, on import, the kernels of the webgl backend, and the gradients. */
import {gradients} from './gradients/gradients';
import {webglKernels} from './kernels/webgl';
import {registerGradients, registerKernels} from './kernels/register';

registerKernels(webglKernels, 'webgl');
registerGradients(gradients);
