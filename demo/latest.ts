/**
 * A function that calls another, one call at a time. Of the calls that come meanwhile the last one follows, and the
 * others are left out: what they would have brought is out of date.
 */
export function latest(call: () => Promise<void>): () => void {
  let isRunning = false;
  let isWanted = false;
  return () => {
    isWanted = true;
    if (isRunning) {
      return;
    }
    isRunning = true;
    const next = async (): Promise<void> => {
      while (isWanted) {
        isWanted = false;
        await call();
      }
    };
    void next().finally(() => (isRunning = false));
  };
}
