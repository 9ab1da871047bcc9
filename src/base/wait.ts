/** Waiting for something, but not for ever. */

/** Wait for it, for so long at most. @returns whether it came; rejects as it does */
export async function within(waited: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<false>((done) => { timer = setTimeout(done, timeoutMs, false); });
  try { return await Promise.race([waited.then(() => true), late]); } finally { clearTimeout(timer); }
}
/** Wait so long, unless the signal comes first. @throws the signal's reason */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  try { await unlessAborted(signal, new Promise<void>((done) => { timer = setTimeout(done, ms); })); } finally { clearTimeout(timer); }
}
/** Wait for it, unless the signal comes first. @throws the signal's reason */
export async function unlessAborted<T>(signal: AbortSignal | undefined, waited: Promise<T>): Promise<T> {
  if (!signal) return waited;
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>(), abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try { return await Promise.race([waited, promise]); } finally { signal.removeEventListener("abort", abort); }
}
