/** What an error shows of a value that may be anything, as JSON where it can be: short however large or deep it is. */
const MAX_LENGTH = 100;
const MAX_ENTRIES = 8;
const MAX_DEPTH = 3;

export function shorten(value: unknown, depth = 0): string {
  if (typeof value === 'string') {
    return JSON.stringify(shortenText(value));
  }
  if (typeof value !== 'object' || value === null) {
    return shortenText(String(value));
  }
  const kind = Object.prototype.toString.call(value).slice('[object '.length, -1);
  if (kind !== 'Object' && kind !== 'Array') {
    return shortenText(kind);
  }
  if (depth === MAX_DEPTH) {
    return '…';
  }
  const entries: string[] = [];
  for (const key in value) {
    if (entries.length === MAX_ENTRIES) {
      entries.push('…');
      break;
    }
    const entry = shorten((value as Record<string, unknown>)[key], depth + 1);
    entries.push(Array.isArray(value) ? entry : `${JSON.stringify(shortenText(key))}:${entry}`);
  }
  return Array.isArray(value) ? `[${entries}]` : `{${entries}}`;
}

export function shortenText(text: string): string {
  return text.length <= MAX_LENGTH ? text : `${text.slice(0, MAX_LENGTH)}…`;
}
