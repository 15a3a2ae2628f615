/** Trains the model of examples/digits with its balancing loss, and writes its weights for the live page. */
import {writeFileSync} from 'node:fs';
import {readDigits} from '../examples/digits/read_digits';
import {defaultAmounts, heldOutDigits, runs, trainOnce} from '../examples/digits/training';
import {sliceDigits} from '../examples/digits/digits';
import {startNodeBackend} from '../examples/shared/node_backend';
import {runMain} from '../examples/shared/run_main';
import {weightNames} from '../demo/engine/net';
import * as tf from '../src/tf';

const [file, backend] = process.argv.slice(2);

async function write(model: tf.LayersModel): Promise<void> {
  const weights = model.getWeights();
  const tensors = await Promise.all(
    weightNames.map(async (name, w): Promise<[string, tf.CheckpointTensor]> => {
      const bytes = new Uint8Array((await weights[w].data<'float32'>()).buffer);
      return [name, {dtype: 'F32', shape: weights[w].shape, bytes}];
    }),
  );
  const blob = await tf.writeSafetensors(new Map(tensors));
  writeFileSync(file, new Uint8Array(await blob.arrayBuffer()));
}

async function main(): Promise<void> {
  await startNodeBackend(backend);
  const digits = readDigits();
  const {numTraining, numEpochs} = defaultAmounts;
  const heldOut = heldOutDigits(digits, defaultAmounts);
  const {accuracy, entropy} = await trainOnce(runs[0], sliceDigits(digits, 0, numTraining), heldOut, numEpochs, {
    print: console.log,
    onTrained: (_, {model}) => write(model),
  });
  console.log(
    `  held-out accuracy ${(100 * accuracy).toFixed(2)} %, entropy of the load ${entropy.toFixed(3)} of uniform`,
  );
}

runMain(main);
