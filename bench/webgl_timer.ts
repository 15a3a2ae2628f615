/** GPU time of what tfjs's WebGL backend draws, by a timer query around it. */
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {GpuTime, GpuTimer} from './gpu_timer';

type TimerQueryExtension = {TIME_ELAPSED_EXT: number; GPU_DISJOINT_EXT: number};

export class WebGLTimer implements GpuTimer {
  private readonly gl: WebGL2RenderingContext;
  private readonly extension: TimerQueryExtension | null;
  readonly hasGpuTime: boolean;
  private numDraws = 0;

  constructor(backend: MathBackendWebGL) {
    this.gl = backend.gpgpu.gl as WebGL2RenderingContext;
    this.extension = this.gl.getExtension('EXT_disjoint_timer_query_webgl2') as TimerQueryExtension | null;
    this.hasGpuTime = this.extension != null;
    const drawElements = this.gl.drawElements.bind(this.gl);
    this.gl.drawElements = (...args) => {
      this.numDraws++;
      drawElements(...args);
    };
  }

  async workDone(): Promise<void> {
    const {gl} = this;
    const sync = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0)!;
    gl.flush();
    await until(() => gl.getSyncParameter(sync, gl.SYNC_STATUS) === gl.SIGNALED);
    gl.deleteSync(sync);
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
    await until(() => gl.getQueryParameter(query, gl.QUERY_RESULT_AVAILABLE) as boolean);
    const nanoseconds = gl.getQueryParameter(query, gl.QUERY_RESULT) as number;
    gl.deleteQuery(query);
    if (gl.getParameter(extension.GPU_DISJOINT_EXT) as boolean) {
      throw new Error('The GPU was interrupted while it was timed: run the benchmark again.');
    }
    return {ms: nanoseconds / 1e6, numPasses: 1, numLaunches};
  }
}

/** Asks again and again, by messages, since a timer of the browser would wait for milliseconds. */
async function until(isDone: () => boolean): Promise<void> {
  const channel = new MessageChannel();
  while (!isDone()) {
    await new Promise<void>((resolve) => {
      channel.port1.onmessage = () => resolve();
      channel.port2.postMessage(null);
    });
  }
  channel.port1.close();
}
