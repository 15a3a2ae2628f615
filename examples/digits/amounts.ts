import {type Amounts, defaultAmounts} from './training';

/** The amounts in a command line or an address. An amount that is not given has its default. */
export function amountsOf(digits: string | null | undefined, epochs: string | null | undefined): Amounts {
  const {numTraining, numHeldOut, numEpochs} = defaultAmounts;
  return {
    numTraining: digits == null ? numTraining : countOf('digits', digits, numTraining),
    numHeldOut,
    numEpochs: epochs == null ? numEpochs : countOf('epochs', epochs, 1000),
  };
}

function countOf(name: string, text: string, largest: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > largest) {
    throw new Error(`${name} must be an integer of 1 to ${largest}, but is '${text}'.`);
  }
  return value;
}
