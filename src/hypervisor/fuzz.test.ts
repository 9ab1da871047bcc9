import assert from "node:assert/strict";
import { test } from "node:test";
import { DOMID } from "../abi/xen.ts";
import { Fixture } from "./fixture.ts";
import { DOMAIN } from "./objects.ts";

/** A small generator of numbers that a hostile guest might try: edges more often than not. */
function hostile(seed: number): { n(): number; p(): bigint } {
  let x = seed >>> 0 || 1;
  const next = (): number => { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; return x >>> 0; };
  const EDGES = [0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 63, 64, 127, 1023, 1024, 4095, 4096, 0x7ff0, 0x7fff, 0xffff, 0x10000, 0x1ffff, 0x20000, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff];
  const n = (): number => (next() % 3 ? EDGES[next() % EDGES.length] as number : next());
  const p = (): bigint => (next() % 4 ? BigInt(n()) : (BigInt(next()) << 32n) | BigInt(next()));
  return { n, p };
}
/** Seed of the run, printed with a failure; DOMUS_SEED repeats it. */
const SEED = Number(process.env["DOMUS_SEED"] ?? 20071107);

test("hypercalls with hostile arguments never throw, and leave no frame behind", async () => {
  const f = new Fixture(), r = hostile(SEED), { hv } = f, free = hv.mm.frames.nrFree;
  for (let i = 0; i < 30_000; i++) {
    const at = 0x1000 + (r.n() % 0x800 & ~7), nr = r.n() % 48, ops = r.n() % 32;
    for (let w = 0; w < 5; w++) f.d.memory.tryWrite(at + w * 8, new Uint8Array(BigUint64Array.of(w === 0 && r.n() & 1 ? BigInt(DOMID.SELF) | r.p() << 32n : r.p()).buffer));
    const pointer = r.n() & 7 ? BigInt(at) : r.p();
    try {
      const result = f.call(nr, ops, nr === 24 ? r.n() % 3 : pointer, nr === 24 || r.n() & 1 ? pointer : r.p(), r.p());
      assert.ok(Number.isInteger(result) && result >= -4095, `${result}`);
    } catch (e) {
      throw new Error(`seed ${SEED}, call ${i}: hypercall ${nr} op ${ops}`, { cause: e });
    }
    if (f.d.isShutDown) f.d.resume();
    if (i % 64 === 0) hv.scheduler.expireTimers();
  }
  assert.ok(hv.load(DOMAIN.totPages, f.d.at) <= 128);
  await f.d.destroy();
  assert.ok(hv.mm.frames.nrFree >= free);
  f.done();
});
