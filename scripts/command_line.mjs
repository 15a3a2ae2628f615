/** Flags and words of this repository's commands: `--help` tells them, and what is wrong is a sentence and no stack. */
import {parseArgs} from 'node:util';

/** Ends the process with a sentence. */
export function fail(message) {
  console.error(message);
  process.exit(1);
}

/** Those of `process.argv`; `options` as parseArgs takes them. Words are an error unless `takesWords`. */
export function parseCommandLine(usage, options, takesWords = false) {
  try {
    const {values: flags, positionals: words} = parseArgs({
      options: {...options, help: {type: 'boolean', short: 'h'}},
      allowPositionals: takesWords,
    });
    if (flags.help) {
      console.log(usage);
      process.exit(0);
    }
    return {flags, words};
  } catch (error) {
    // Node.js adds advice on words that begin with a dash.
    const [sentence] = error.message.split('. To specify');
    return fail(`${sentence}\n\n${usage}`);
  }
}

/** The words of a list `a,b`, each of `known` whatever its case. */
export function listOf(flag, text, known) {
  return text.split(',').map((word) => {
    const found = known.find((name) => name.toLowerCase() === word.toLowerCase());
    return found ?? fail(`--${flag} must be of ${known.join(', ')}, but is '${word}'.`);
  });
}
