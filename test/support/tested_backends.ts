/** The backends that the specs run on, in every browser of the Karma matrix. */
export const testedBackends = [
  {name: 'cpu', backendName: 'cpu', isDataSync: true},
  {name: 'wasm', backendName: 'wasm', isDataSync: true},
];
