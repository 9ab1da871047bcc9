/** A domain's debug console: what it writes by hypercall console_io or to port 0xe9, in a ring that domain 0 empties. What nobody empties in time is lost, oldest first. */
import type { Domain } from "./domain.ts";
import { DOMAIN } from "./objects.ts";

const SIZE = 4096;
/** Append, and tell domain 0. */
export function writeConring(d: Domain, bytes: Uint8Array): void {
  const at = d.hv.get(DOMAIN.conring, d.at), { u8 } = d.hv.views;
  let prod = d.hv.load(DOMAIN.conringProd, d.at) >>> 0;
  for (const b of bytes) u8[at + prod++ % SIZE] = b;
  d.hv.store(DOMAIN.conringProd, d.at, prod | 0);
  d.hv.domExc();
}
/** Take what was written since the last time. One reader. */
export function readConring(d: Domain): Uint8Array {
  const at = d.hv.get(DOMAIN.conring, d.at), prod = d.hv.load(DOMAIN.conringProd, d.at) >>> 0, cons = d.hv.load(DOMAIN.conringCons, d.at) >>> 0;
  const n = Math.min((prod - cons) >>> 0, SIZE), bytes = new Uint8Array(n);
  for (let i = 0; i < n; i++) bytes[i] = d.hv.views.u8[at + ((prod - n + i) >>> 0) % SIZE] as number;
  d.hv.store(DOMAIN.conringCons, d.at, prod | 0);
  return bytes;
}
