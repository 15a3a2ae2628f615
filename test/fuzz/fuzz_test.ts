/** The fuzzer itself, and a few of its draws. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {runFuzz} from './run';

describeWithFlags('fuzz', {predicate: ({backendName}) => backendName === 'cpu'}, () => {
  it('finds nothing wrong', async () => {
    const lines: string[] = [];
    const {numFailures} = await runFuzz({backend: 'cpu', seed: 230, minutes: Infinity, count: 5_000}, (line) => lines.push(line));
    expect(numFailures).withContext(lines.join('\n')).toBe(0);
  });
});
