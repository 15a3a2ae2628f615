/** The language model of examples/text, in the worker. It is a chunk of its own, with all of tf.layers. */
import {speak} from '../../examples/text/speaking';
import {filesAt, loadTextModel, type TextModel} from '../../examples/text/text_model';

export type OnCharacter = (character: string, experts: number[]) => void;

export class Speaker {
  private stopper = new AbortController();
  private speaking: Promise<unknown> = Promise.resolve();

  private constructor(private readonly text: TextModel) {}

  static async load(): Promise<Speaker> {
    return new Speaker(await loadTextModel(filesAt(new URL('text/', location.href))));
  }

  /** Speaks until the length is reached, or until stop. */
  async speak(prompt: string, temperature: number, length: number, onCharacter: OnCharacter): Promise<void> {
    await this.stop();
    this.stopper = new AbortController();
    const {signal} = this.stopper;
    const spoken = speak(this.text, prompt, {length, temperature, signal, onCharacter});
    this.speaking = spoken.catch(() => {});
    await spoken.catch((error: unknown) => {
      if (!signal.aborted) {
        throw error;
      }
    });
  }

  async stop(): Promise<void> {
    this.stopper.abort();
    await this.speaking;
  }

  async dispose(): Promise<void> {
    await this.stop();
    this.text.model.dispose();
  }
}
