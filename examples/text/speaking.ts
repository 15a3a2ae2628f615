/** Lets a model write, and tells which expert each character goes to. */
import * as tf from '../../src/tf';
import {expertLayers} from './model';
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
  /** Called with each character, those of the prompt too, and with its first expert in each layer. */
  onCharacter?: (character: string, experts: number[]) => void;
};

const TEMPERATURE = 0.7;

/** What the model writes after the prompt, and the prompt itself. */
export async function speak({model, alphabet}: TextModel, prompt: string, options: SpeakOptions): Promise<RoutedText> {
  const {length, temperature = TEMPERATURE, seed, signal, onCharacter} = options;
  const given = alphabet.encode(prompt);
  const experts = expertLayers(model).map((): number[] => []);
  const routes = recordRoutes(model);
  let text = '';
  /** Characters are told in their order, each after those before it. */
  let telling: Promise<void> = Promise.resolve();
  const tell = (characters: string): void => {
    const read = routes.read();
    telling = telling.then(async () => {
      const ofLayers = await read;
      for (const [i, character] of [...characters].entries()) {
        const ofCharacter = ofLayers.map((ofLayer) => ofLayer[i]);
        ofCharacter.forEach((expert, layer) => experts[layer].push(expert));
        text += character;
        onCharacter?.(character, ofCharacter);
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

/** Records where layers of experts send their tokens. */
function recordRoutes(model: tf.LayersModel) {
  const layers = expertLayers(model);
  /** For each layer the router's logits of the last step. */
  const logits: tf.Tensor[] = [];
  const drop = (): void => tf.dispose(logits.splice(0));
  layers.forEach((layer, l) =>
    layer.setCallHook((inputs) => {
      if (l === 0) {
        drop();
      }
      const [states] = [inputs].flat() as tf.Tensor[];
      const [routerKernel] = layer.getWeights() as tf.Tensor2D[];
      const tokens = tf.reshape<tf.Rank.R2>(states, [-1, routerKernel.shape[0]]);
      logits.push(tf.keep(tf.matMul(tokens, routerKernel)));
    }),
  );
  return {
    /**
     * For each layer the first expert of each token of the last step: the softmax is largest where the logit is. A step
     * that webgpu repeats without calling layers writes its logits into the same tensors, so they stay.
     */
    read: async (): Promise<number[][]> => {
      const first = tf.tidy(() => tf.argMax(tf.stack(logits), -1));
      const ids = Array.from(await first.data());
      first.dispose();
      const numTokens = ids.length / layers.length;
      return layers.map((_, l) => ids.slice(l * numTokens, (l + 1) * numTokens));
    },
    end: (): void => {
      layers.forEach((layer) => layer.clearCallHook());
      drop();
    },
  };
}
