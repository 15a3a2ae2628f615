/** The webgl backend of a page, and others beside it. */
import {MathBackendWebGL, setWebGLContext} from '@tensorflow/tfjs-backend-webgl';
import * as tf from '../../src/tf';

export const backend = () => tf.backend() as MathBackendWebGL;

/** Runs with other flags, and restores the old flags. */
export async function withFlags(
  flags: Record<string, boolean | number>,
  run: () => void | Promise<void>,
): Promise<void> {
  const before = Object.keys(flags).map((name) => [name, tf.env().get(name)] as const);
  Object.entries(flags).forEach(([name, value]) => tf.env().set(name, value));
  try {
    await run();
  } finally {
    before.forEach(([name, value]) => tf.env().set(name, value));
  }
}

const OWN = 'own-webgl';

/** Runs on a backend with its own context, textures and programs. */
export async function onOwnBackend(
  run: (own: MathBackendWebGL, canvas: HTMLCanvasElement) => Promise<void>,
  given?: MathBackendWebGL,
): Promise<void> {
  const {gl} = backend().gpgpu;
  const canvas = document.createElement('canvas');
  const own = given ?? new MathBackendWebGL(canvas);
  tf.registerBackend(OWN, () => own);
  if (tf.getKernel('MoePermute', OWN) == null) {
    tf.copyRegisteredKernels('webgl', OWN);
  }
  await tf.setBackend(OWN);
  try {
    await run(own, canvas);
  } finally {
    await tf.setBackend('webgl');
    tf.removeBackend(OWN);
    // tfjs would make its next backend on the newest context, which lacks the programs that specs keep.
    setWebGLContext(2, gl);
  }
}

/** A tensor that only the device holds, in texels of one element or of 2 x 2 elements. */
export function onDevice<T extends tf.Tensor>(x: T, packed: boolean): T {
  const info = packed ? backend().packTensor(x) : backend().unpackTensor(backend().packTensor(x));
  return tf.engine().makeTensorFromTensorInfo(info) as T;
}
