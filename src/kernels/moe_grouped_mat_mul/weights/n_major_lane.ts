/** Lanes where a row of weights has the columns of a term. */
import {repeat} from '../../shared/repeat';
import type {LaneReader} from './weight_reader';

/** Four terms of four columns, by rawQuad. */
export const nMajorLane = (page: Pick<LaneReader, 'buffers' | 'functions'>): LaneReader => ({
  ...page,
  numTerms: 4,
  load: '',
  quad: () => repeat(4, (t) => `let weight${t} = weightsOf(rawQuad(expert, d, k + ${t}));`),
});
