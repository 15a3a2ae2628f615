/** What a page tells the server of `npm start`. */

const post = (path: string, body: string) => fetch(path, {method: 'POST', body});

/** Lines arrive in the order in which they were printed. */
let lastLine: Promise<unknown> = Promise.resolve();

/** Prints a line in the terminal of the server. */
export function print(line: string): void {
  lastLine = lastLine.then(() => post('line', line)).catch(() => {});
}

/** Ends the page's run, with an error if one is given. */
export async function reportEnd(error: string | null): Promise<void> {
  await lastLine;
  await post('done', JSON.stringify({error}));
}
