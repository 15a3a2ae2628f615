/** GPU time of what tfjs's WebGL backend draws, by a timer query around it. */
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {GpuTime, GpuTimer} from './gpu_timer';

type TimerQueryExtension = {TIME_ELAPSED_EXT: number; GPU_DISJOINT_EXT: number};

/** A timer query that has no result by then has none. */
const MAX_WAIT_MS = 20_000;

export class WebGLTimer implements GpuTimer {
  private readonly gl: WebGL2RenderingContext;
  private readonly extension: TimerQueryExtension | null;
  readonly hasGpuTime: boolean;
  private numDraws = 0;

  constructor(backend: MathBackendWebGL, wantsGpuTime = true) {
    this.gl = backend.gpgpu.gl as WebGL2RenderingContext;
    this.extension = this.gl.getExtension('EXT_disjoint_timer_query_webgl2') as TimerQueryExtension | null;
    this.hasGpuTime = wantsGpuTime && this.extension != null;
    const drawElements = this.gl.drawElements.bind(this.gl);
    this.gl.drawElements = (...args) => {
      this.numDraws++;
      drawElements(...args);
    };
  }

  async workDone(): Promise<void> {
    waitForWebGL(this.gl);
    this.assertAlive();
  }

  private assertAlive(): void {
    if (this.gl.isContextLost()) {
      throw new Error('The WebGL context was lost while it was timed.');
    }
  }

  async time(work: () => void): Promise<GpuTime> {
    const {gl, extension} = this;
    if (extension == null) {
      throw new Error('This browser has no timer queries for WebGL (EXT_disjoint_timer_query_webgl2).');
    }
    // Reading this resets it: what happened before does not count.
    gl.getParameter(extension.GPU_DISJOINT_EXT);
    const query = gl.createQuery()!;
    this.numDraws = 0;
    gl.beginQuery(extension.TIME_ELAPSED_EXT, query);
    work();
    gl.endQuery(extension.TIME_ELAPSED_EXT);
    const numLaunches = this.numDraws;
    await this.workDone();
    await this.until(() => gl.getQueryParameter(query, gl.QUERY_RESULT_AVAILABLE) as boolean);
    const nanoseconds = gl.getQueryParameter(query, gl.QUERY_RESULT) as number;
    gl.deleteQuery(query);
    if (gl.getParameter(extension.GPU_DISJOINT_EXT) as boolean) {
      throw new Error('The GPU was interrupted while it was timed: run the benchmark again.');
    }
    return {ms: nanoseconds / 1e6, numPasses: 1, numLaunches};
  }

  /** Asks again and again, by messages, since a timer of the browser would wait for milliseconds. */
  private async until(isDone: () => boolean): Promise<void> {
    const channel = new MessageChannel();
    const end = performance.now() + MAX_WAIT_MS;
    while (!isDone()) {
      this.assertAlive();
      if (performance.now() > end) {
        throw new Error(`A timer query of WebGL gave no result in ${MAX_WAIT_MS} ms.`);
      }
      await new Promise<void>((resolve) => {
        channel.port1.onmessage = () => resolve();
        channel.port2.postMessage(null);
      });
    }
    channel.port1.close();
  }
}

const onePixels = new WeakMap<WebGL2RenderingContext, WebGLFramebuffer>();

/**
 * Reads a pixel that is cleared after all of the work: one way to wait that every driver has. A fence took the GPU
 * process of Chromium down on one of them.
 */
export function waitForWebGL(gl: WebGL2RenderingContext): void {
  const onePixel = onePixels.get(gl) ?? makeOnePixel(gl);
  onePixels.set(gl, onePixel);
  const bound = gl.getParameter(gl.FRAMEBUFFER_BINDING) as WebGLFramebuffer | null;
  gl.bindFramebuffer(gl.FRAMEBUFFER, onePixel);
  gl.clear(gl.COLOR_BUFFER_BIT);
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  gl.bindFramebuffer(gl.FRAMEBUFFER, bound);
}

function makeOnePixel(gl: WebGL2RenderingContext): WebGLFramebuffer {
  const bound = gl.getParameter(gl.FRAMEBUFFER_BINDING) as WebGLFramebuffer | null;
  const framebuffer = gl.createFramebuffer();
  gl.bindFramebuffer(gl.FRAMEBUFFER, framebuffer);
  const renderbuffer = gl.createRenderbuffer();
  gl.bindRenderbuffer(gl.RENDERBUFFER, renderbuffer);
  gl.renderbufferStorage(gl.RENDERBUFFER, gl.RGBA8, 1, 1);
  gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.RENDERBUFFER, renderbuffer);
  gl.bindFramebuffer(gl.FRAMEBUFFER, bound);
  return framebuffer;
}
