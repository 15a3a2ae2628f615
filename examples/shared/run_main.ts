/** Runs a program of Node.js to its end, or to its error. */
export function runMain(main: () => Promise<void>): void {
  main().then(
    // Dawn keeps the process alive.
    () => process.exit(0),
    (error: unknown) => {
      console.error(error instanceof Error ? error.message : error);
      process.exit(1);
    },
  );
}
