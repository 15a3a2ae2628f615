/** The characters of a text, which are the tokens of the model. */

export type Alphabet = {
  size: number;
  /** The ids of a text, each 0..size-1. */
  encode(text: string): number[];
  decode(ids: readonly number[]): string;
  /** The id of each character, as files name it. */
  vocabulary: {[character: string]: number};
};

/** The alphabet of all characters that `text` has. */
export function alphabetOf(text: string): Alphabet {
  const characters = [...new Set(text)].sort();
  return alphabetOfVocabulary(Object.fromEntries(characters.map((character, id) => [character, id])));
}

/** The alphabet of the characters and ids of a vocab.json. */
export function alphabetOfVocabulary(vocabulary: Alphabet['vocabulary']): Alphabet {
  const characters = Object.keys(vocabulary).sort((a, b) => vocabulary[a] - vocabulary[b]);
  return {
    size: characters.length,
    encode: (given) =>
      Array.from(given, (character) => {
        const id = vocabulary[character];
        if (id == null) {
          throw new Error(`The text that the model learns has no '${character}'.`);
        }
        return id;
      }),
    decode: (ids) => ids.map((id) => characters[id]).join(''),
    vocabulary,
  };
}

const STRETCH = 2000;
const STRETCHES_PER_HELD_OUT = 20;

/** Every twentieth stretch of the text is held out, so that no part of it goes unheard. */
export function splitText(text: string): {training: string; heldOut: string} {
  const stretches = Array.from({length: Math.ceil(text.length / STRETCH)}, (_, i) =>
    text.slice(i * STRETCH, (i + 1) * STRETCH),
  );
  const isHeldOut = (i: number) => i % STRETCHES_PER_HELD_OUT === STRETCHES_PER_HELD_OUT - 1;
  return {
    training: stretches.filter((_, i) => !isHeldOut(i)).join(''),
    heldOut: stretches.filter((_, i) => isHeldOut(i)).join(''),
  };
}
