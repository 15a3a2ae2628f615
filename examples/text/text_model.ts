/** A trained model in files: config.json, model.safetensors, and vocab.json with the ids of its characters. */
import * as tf from '../../src/tf';
import {type Alphabet, alphabetOfVocabulary} from './characters';

/** A model, and its characters. */
export type TextModel = {model: tf.LayersModel; alphabet: Alphabet};

/** Reads a file by its name. */
export type ReadFile = (name: string) => Promise<ArrayBuffer>;

/** Files of a web server, in a folder whose address ends with a slash. */
export const filesAt =
  (folder: string | URL): ReadFile =>
  async (name) => {
    const url = new URL(name, folder);
    const response = await fetch(url).catch((cause: unknown) => {
      throw new Error(`${url.href} must be a file of the model, but its server gives no answer.`, {cause});
    });
    if (!response.ok) {
      throw new Error(`${response.url} must be a file of the model, but gives status ${response.status}.`);
    }
    return response.arrayBuffer();
  };

/** Dispose of its `model`. Experts stay in the format of the files. */
export async function loadTextModel(read: ReadFile): Promise<TextModel> {
  const json = async (name: string): Promise<unknown> => JSON.parse(new TextDecoder().decode(await read(name)));
  const [config, vocabulary, weights] = await Promise.all([
    json('config.json'),
    json('vocab.json'),
    read('model.safetensors'),
  ]);
  return {
    model: await tf.loadMoeLanguageModel(weights, config as tf.MoeModelConfig),
    alphabet: alphabetOfVocabulary(vocabulary as Alphabet['vocabulary']),
  };
}
