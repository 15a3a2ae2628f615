/** Lets a model write, and tells which experts each character goes to. */
import * as tf from '../../src/tf';
import {recordRoutes, type Route} from './routes';
import type {TextModel} from './text_model';

/** A text, and for each layer the first expert of each of its characters. */
export type RoutedText = {text: string; experts: number[][]};

export type SpeakOptions = {
  /** Characters after the prompt. */
  length: number;
  temperature?: number;
  /** The same text every time. Default: another one. */
  seed?: number;
  signal?: AbortSignal;
  /** Called with each character, those of the prompt too, and with its route in each layer. */
  onCharacter?: (character: string, routes: Route[]) => void;
};

const TEMPERATURE = 0.7;

/** What the model writes after the prompt, and the prompt itself. */
export async function speak({model, alphabet}: TextModel, prompt: string, options: SpeakOptions): Promise<RoutedText> {
  const {length, temperature = TEMPERATURE, seed, signal, onCharacter} = options;
  const given = alphabet.encode(prompt);
  const routes = recordRoutes(model);
  const experts = Array.from({length: routes.numLayers}, (): number[] => []);
  let text = '';
  /** Characters are told in their order, each after those before it. */
  let telling: Promise<void> = Promise.resolve();
  const tell = (characters: string): void => {
    const read = routes.read();
    telling = telling.then(async () => {
      const paths = await read;
      for (const [i, character] of [...characters].entries()) {
        paths[i].forEach((route, layer) => experts[layer].push(route.experts[0]));
        text += character;
        onCharacter?.(character, paths[i]);
      }
    });
  };
  try {
    let characters = prompt;
    // A character goes to its experts when the one after it is asked for, so one more is asked for than is told.
    await tf.generate(model, given, {
      maxNewTokens: length + 1,
      temperature,
      seed,
      signal,
      onToken: (id) => {
        tell(characters);
        characters = alphabet.decode([id]);
        return pause();
      },
    });
  } finally {
    routes.end();
    await telling;
  }
  return {text, experts};
}

/** Lets other events in, such as the click that calls the speech off. A timer would wait for 4 ms. */
function pause(): Promise<void> {
  return new Promise((resolve) => {
    const {port1, port2} = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
