import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSystemMap, SymbolTable } from "./symbols.ts";

const MAP = `0000000000000000 D __per_cpu_start
0000000000001000 A irq_stack_backing_store
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000100 W weak_one
ffffffff81000100 T strong_one
ffffffff81000200 t local_one
ffffffff81000300 D jiffies
ffffffff81000300 R __end_rodata
ffffffff82000000 T last_one
`;

test("an address is its function's, and no function's beyond what the map knows", () => {
  const table = new SymbolTable(parseSystemMap(MAP, "map")), at = (address: bigint) => table.functionAt(Number(BigInt.asIntN(64, address)));
  assert.equal(at(0xffffffff81000000n), "startup_64");
  assert.equal(at(0xffffffff810000ffn), "startup_64");
  assert.equal(at(0xffffffff81000100n), "strong_one");
  assert.equal(at(0xffffffff810002ffn), "local_one");
  assert.equal(at(0xffffffff81000300n), undefined, "data");
  assert.equal(at(0xffffffff80ffffffn), undefined, "before the kernel");
  assert.equal(at(0xffffffff82000fffn), "last_one");
  assert.equal(at(0xffffffffc0123456n), undefined, "a module");
  assert.equal(at(0x401000n), undefined);
  assert.equal(new SymbolTable([]).functionAt(0), undefined);
});

test("what is no System.map is refused, Debian's stand-in by its name", () => {
  assert.throws(() => parseSystemMap("hello\n", "f"), /f: no System\.map; its lines look like/);
  assert.throws(() => parseSystemMap("ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n", "f"), /f: only stands in for the System\.map of package linux-image-<version>-dbg/);
});
