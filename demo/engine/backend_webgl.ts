import '@tensorflow/tfjs-backend-webgl';
import '../../src/kernels/webgl';

export async function prepare(): Promise<void> {}
