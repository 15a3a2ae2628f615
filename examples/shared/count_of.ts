/** The integer of an argument in a command line or an address. */
export function countOf(name: string, text: string, largest: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > largest) {
    throw new Error(`${name} must be an integer of 1 to ${largest}, but is '${text}'.`);
  }
  return value;
}
