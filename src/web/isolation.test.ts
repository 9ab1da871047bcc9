import assert from "node:assert/strict";
import { test } from "node:test";
import { ensureIsolation } from "./isolation.ts";

test("a page that has its shared memory forgets how often it was loaded again: a reload past the service worker is no failure", async () => {
  const kept = new Map([["domus.isolated", "2"]]);
  Object.defineProperty(globalThis, "sessionStorage", { configurable: true, value: { getItem: (k: string) => kept.get(k) ?? null, setItem: (k: string, v: string) => { kept.set(k, v); }, removeItem: (k: string) => { kept.delete(k); } } });
  Object.assign(globalThis, { crossOriginIsolated: true });
  assert.equal(await ensureIsolation(), null);
  assert.equal(kept.size, 0);
});
