/** A benchmark ends with the first error of its device. The device here is a stand-in, so that it needs no GPU. */
import {describeWithFlags} from '@tensorflow/tfjs-core/dist/jasmine_util';
import {endedByDeviceErrors, nameOf} from '../../bench/device';
import {isVllmDevice} from '../../bench/shapes';

const cpu = {predicate: ({backendName}: {backendName: string}) => backendName === 'cpu'};

function standInDevice() {
  const events = new EventTarget();
  let lose!: (info: {reason: string; message: string}) => void;
  const lost = new Promise((resolve) => (lose = resolve));
  const queue = {onSubmittedWorkDone: () => Promise.resolve()};
  const device = Object.assign(events, {lost, queue}) as unknown as GPUDevice;
  const report = (message: string) => events.dispatchEvent(Object.assign(new Event('uncapturederror'), {error: {message}}));
  return {device, report, lose};
}

describeWithFlags('bench: the device', cpu, () => {
  it('gives the result where it reports nothing', async () => {
    expect(await endedByDeviceErrors(() => Promise.resolve(3), standInDevice().device)).toBe(3);
  });

  it('ends what runs where it reports an error', async () => {
    const {device, report} = standInDevice();
    const ended = endedByDeviceErrors(() => new Promise(() => {}), device);
    report('A binding is too large.');
    await expectAsync(ended).toBeRejectedWithError('The WebGPU device reports: A binding is too large.');
  });

  it('ends what runs where it is lost, but not where it was destroyed', async () => {
    const [lost, destroyed] = [standInDevice(), standInDevice()];
    const ended = endedByDeviceErrors(() => new Promise(() => {}), lost.device);
    lost.lose({reason: 'unknown', message: 'It hung.'});
    await expectAsync(ended).toBeRejectedWithError('The WebGPU device is lost: It hung.');
    destroyed.lose({reason: 'destroyed', message: ''});
    expect(await endedByDeviceErrors(() => Promise.resolve(3), destroyed.device)).toBe(3);
  });

  it('is compared with times of an H200 only if it is one', () => {
    const named = (device: string) => nameOf({vendor: 'nvidia', architecture: 'hopper', device, description: ''} as GPUAdapterInfo);
    expect(named('nvidia-h100-80gb-hbm3')).toBe('nvidia hopper nvidia-h100-80gb-hbm3');
    expect(isVllmDevice(named('nvidia-h100-80gb-hbm3'))).toBe(false);
    expect(isVllmDevice(named('nvidia-h200'))).toBe(true);
  });
});
