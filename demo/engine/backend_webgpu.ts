import '../../src/kernels/webgpu';
import {registerWebGPUBackend} from '../../src/webgpu';

export const prepare = (): Promise<void> => registerWebGPUBackend();
