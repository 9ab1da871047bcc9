/** The runtime's arithmetic, against BigInt. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { RUNTIME_IMPORTS, runtimeModule } from "./runtime.ts";

test("the high halves of products are those of BigInt, where the factors have 32 bits and where they have more", () => {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }), table = new WebAssembly.Table({ element: "anyfunc", initial: 2 });
  const module = new WebAssembly.Module(runtimeModule({ min: 1, max: 1, shared: true }, 2, 0, 0, 0)), none = Object.fromEntries(Object.keys(RUNTIME_IMPORTS).map((name) => [name, () => 0]));
  const { mulhs, mulhu } = new WebAssembly.Instance(module, { e: { ...none, memory, table } }).exports as Record<string, (a: bigint, b: bigint) => bigint>;
  const edges = [31n, 32n, 62n, 63n].flatMap((n) => [2n ** n - 1n, 2n ** n, -(2n ** n), -(2n ** n) - 1n]).concat([0n, 1n, -1n, 0x123456789abcdefn, -0x7654321n]).map((x) => BigInt.asIntN(64, x));
  for (const a of edges) for (const b of edges) {
    assert.equal(mulhs!(a, b), BigInt.asIntN(64, a * b >> 64n), `${a} * ${b}`);
    assert.equal(mulhu!(a, b), BigInt.asIntN(64, BigInt.asUintN(64, a) * BigInt.asUintN(64, b) >> 64n), `${a} * ${b} without signs`);
  }
});
