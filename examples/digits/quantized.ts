/** The trained model with quantized experts: what that does to its accuracy and to the size of the experts. */
import * as tf from '../../src/tf';
import type {Digits} from './digits';
import {type DigitModel, makeDigitModel} from './model';
import {evaluate, percent, type RunResult} from './training';

/** With scales as in files of ggml and MXFP4. */
const quantizations: Array<NonNullable<Parameters<typeof tf.quantizeMixtureOfExperts>[1]>> = [
  {format: 'int8', scaleFormat: 'float16'},
  {format: 'float8', scaleFormat: 'float16'},
  {format: 'int4', scaleFormat: 'float16'},
  {format: 'int4', scaleFormat: 'float16', symmetric: false},
  {format: 'fp4'},
];

/** Prints a line for float32 and for each format: the held-out accuracy, and the bytes of the experts' weights. */
export async function printQuantized(
  trained: DigitModel,
  {accuracy, predictions}: RunResult,
  heldOut: Digits,
  print: (line: string) => void,
): Promise<void> {
  print('  with quantized experts, held-out accuracy, digits classed as before, size of the experts:');
  print(`    ${'float32'.padEnd(18)} ${percent(accuracy)}            ${expertBytes(trained)} bytes`);
  for (const options of quantizations) {
    const quantized = quantizedModel(trained, options);
    const result = await evaluate(quantized.model, quantized.experts, heldOut);
    const numSame = result.predictions.filter((prediction, i) => prediction === predictions[i]).length;
    const name = `${options.format}${options.symmetric === false ? ' with offsets' : ''}`;
    print(
      `    ${name.padEnd(18)} ${percent(result.accuracy)}  ${percent(numSame / predictions.length)}  ` +
        `${expertBytes(quantized)} bytes`,
    );
    quantized.model.dispose();
  }
}

/** The same model with other experts. */
function quantizedModel(trained: DigitModel, options: (typeof quantizations)[number]): DigitModel {
  const experts = tf.quantizeMixtureOfExperts(trained.experts, options);
  const quantized = makeDigitModel({loadBalancingLossWeight: 0, seed: 0, experts});
  quantized.model.layers.forEach((layer, i) => {
    if (layer !== experts) {
      layer.setWeights(trained.model.layers[i].getWeights());
    }
  });
  return quantized;
}

/** All weights of the layer but its router. */
const expertBytes = ({experts}: DigitModel): number =>
  experts.weights
    .filter(({originalName}) => !originalName.endsWith('router_kernel'))
    .reduce((sum, weight) => sum + 4 * tf.util.sizeFromShape(weight.shape as number[]), 0);
