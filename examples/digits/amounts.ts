import {countOf} from '../shared/count_of';
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
