/**
 * Makes a small language model of each family with random weights, and writes what languageModelFiles gives for it and
 * the logits that it gives, a folder a family: for bench/peers/exported_models.py, which loads them in transformers.
 */
import {mkdirSync, readdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {languageModelFiles} from '../src/models/language_model_files';
import * as tf from '../src/tf';

const [goldens, target] = process.argv.slice(2);
const ids = [1, 5, 9, 3, 17, 30, 2, 8];

async function main(): Promise<void> {
  await tf.setBackend('cpu');
  for (const name of readdirSync(goldens)) {
    const config = JSON.parse(readFileSync(join(goldens, name, 'config.json'), 'utf8')) as Record<string, unknown>;
    const model = tf.moeLanguageModel(config);
    // Norms, biases and sinks of a new model are ones and zeros.
    model.setWeights(
      model.getWeights().map((weight, w) => tf.add(weight, tf.randomNormal(weight.shape, 0, 0.1, 'float32', w))),
    );
    const folder = join(target, name);
    mkdirSync(folder, {recursive: true});
    for (const [fileName, blob] of Object.entries(await languageModelFiles(model, config))) {
      writeFileSync(join(folder, fileName), new Uint8Array(await blob.arrayBuffer()));
    }
    const logits = model.predict(tf.tensor2d([ids], undefined, 'int32')) as tf.Tensor;
    writeFileSync(
      join(folder, 'logits.json'),
      JSON.stringify({ids, logits: ((await logits.array()) as number[][][])[0]}),
    );
    console.log(`${name}: logits of ${ids.length} tokens`);
  }
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
