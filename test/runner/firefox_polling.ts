/** Firefox looks for what a GPU has done every 100 ms, and after each submit. */
const POLL_MS = 2;

/** Makes Firefox look more often, as long as the page is there. */
export function keepPolling(device: GPUDevice): void {
  if (navigator.userAgent.includes('Firefox')) {
    setInterval(() => device.queue.submit([]), POLL_MS);
  }
}
