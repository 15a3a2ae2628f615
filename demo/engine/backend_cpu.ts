import '@tensorflow/tfjs-backend-cpu';
import '../../src/kernels/cpu';

export async function prepare(): Promise<void> {}
