/** The table of nasty shapes that every op runs, and the generators of random routings for the specs. */
import * as fc from 'fast-check';

/** The generator of ../golden's grids: state = 1664525*state + 1013904223 mod 2^32, as a number in [0, 1). */
export function lcg(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** K different experts for each token, by a partial shuffle. */
export function distinctIds(numTokens: number, numExperts: number, topk: number, seed: number): number[][] {
  const next = lcg(seed);
  return Array.from({length: numTokens}, () => {
    const experts = Array.from({length: numExperts}, (_, e) => e);
    for (let j = 0; j < topk; j++) {
      const r = j + Math.floor(next() * (numExperts - j));
      [experts[j], experts[r]] = [experts[r], experts[j]];
    }
    return experts.slice(0, topk);
  });
}

function idsOf(numTokens: number, topk: number, choose: (next: () => number, t: number, k: number) => number): number[][] {
  const next = lcg(numTokens * 31 + topk);
  return Array.from({length: numTokens}, (_, t) => Array.from({length: topk}, (__, k) => choose(next, t, k)));
}

export type NastyRouting = {
  name: string;
  ids: number[][];
  topk: number;
  numExperts: number;
  hiddenSize: number;
};

const routing = (
  name: string,
  [numTokens, topk, numExperts, hiddenSize]: [number, number, number, number],
  choose: (next: () => number, t: number, k: number) => number = (next) => Math.floor(next() * numExperts),
): NastyRouting => ({name, ids: idsOf(numTokens, topk, choose), topk, numExperts, hiddenSize});

export const nastyRoutings: NastyRouting[] = [
  routing('T = 0', [0, 2, 4, 3]),
  routing('T = 1, K = 1, E = 1, H = 1', [1, 1, 1, 1]),
  routing('T = 1, K = E', [1, 5, 5, 7], (_next, _t, k) => 4 - k),
  routing('K = E, every token in every expert', [9, 6, 6, 4], (_next, t, k) => (t + k) % 6),
  routing('K > E, repeated experts', [7, 5, 2, 3]),
  routing('K = 40', [4, 40, 50, 3]),
  routing('K = 300', [3, 300, 7, 2]),
  routing('an empty expert at both ends and between', [13, 2, 9, 5], (next) => [2, 3, 5][Math.floor(next() * 3)]),
  routing('all tokens to one expert', [40, 2, 8, 6], () => 5),
  routing('odd H', [17, 3, 4, 13]),
  routing('E = 1', [21, 2, 1, 2]),
  routing('E = 60', [50, 4, 60, 3]),
  routing('E = 160', [33, 6, 160, 8]),
  routing('E = 257', [65, 8, 257, 1]),
  routing('E = 1,025', [129, 2, 1025, 4]),
  routing('E = 1,025, more assignments', [550, 2, 1025, 1]),
  routing('ids -1 and E', [23, 3, 4, 5], (next) => Math.floor(next() * 6) - 1),
  routing('ids far outside', [11, 2, 3, 4], (next) => [-(2 ** 31), -7, 0, 2, 3, 2 ** 24 + 1][Math.floor(next() * 6)]),
  routing('no id is an expert', [6, 2, 3, 4], () => -1),
  routing('65,600 rows', [8200, 8, 16, 1]),
];

/** Maps of E experts to the L local experts, with the special case that each shows. */
export function nastyMaps(numExperts: number): Array<{name: string; expertMap: number[]; numLocalExperts?: number}> {
  const experts = Array.from({length: numExperts}, (_, e) => e);
  const half = Math.ceil(numExperts / 2);
  return [
    {name: 'second half local', expertMap: experts.map((e) => (e >= numExperts - half ? e - (numExperts - half) : -1)), numLocalExperts: half},
    {name: 'every other local, L left out', expertMap: experts.map((e) => (e % 2 === 0 ? e / 2 : -1))},
    {name: 'reversed', expertMap: experts.map((e) => numExperts - 1 - e)},
    {name: 'merged in pairs, entries past L', expertMap: experts.map((e) => Math.floor(e / 2)), numLocalExperts: Math.ceil(half / 2)},
    {name: 'none local', expertMap: experts.map(() => -5), numLocalExperts: 1},
  ];
}

/** Any small routing with any map, including ids that name no expert. */
export const anyRouting = fc
  .record({
    numTokens: fc.nat({max: 12}),
    topk: fc.integer({min: 1, max: 5}),
    numExperts: fc.integer({min: 1, max: 9}),
    hiddenSize: fc.integer({min: 1, max: 6}),
    blockSize: fc.integer({min: 1, max: 7}),
    fillInvalidExpert: fc.integer({min: -3, max: 9}),
  })
  .chain((sizes) =>
    fc.record({
      sizes: fc.constant(sizes),
      ids: fc.array(
        fc.array(fc.integer({min: -2, max: sizes.numExperts + 1}), {minLength: sizes.topk, maxLength: sizes.topk}),
        {minLength: sizes.numTokens, maxLength: sizes.numTokens},
      ),
      numLocalExperts: fc.integer({min: 1, max: sizes.numExperts}),
      expertMap: fc.array(fc.integer({min: -2, max: sizes.numExperts + 1}), {
        minLength: sizes.numExperts,
        maxLength: sizes.numExperts,
      }),
    }),
  );
