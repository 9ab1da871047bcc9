import assert from "node:assert/strict";
import { test } from "node:test";
import { Fixture } from "../hypervisor/fixture.ts";
import { gprAt, RAX } from "../x86/state.ts";
import { collector } from "./fixture.ts";
import { writeImageEnd } from "./image.ts";
import { Sink } from "./stream.ts";

test("registers are read before the stream is waited for: a domain that is destroyed meanwhile leaves them to others", async () => {
  const f = new Fixture(), v = f.d.vcpu(0)!, out = collector(), mine = 0x1122334455667788n, others = 0x99aabbccddeeff00n, rax = (value: bigint): void => f.hv.views.dv.setBigUint64(v.context + gprAt(RAX), value, true);
  rax(mine);
  const written = writeImageEnd(new Sink(out.stream), f.d, []);
  rax(others);
  await written;
  const bytes = Buffer.from(out.bytes()), word = (value: bigint): Buffer => { const b = Buffer.alloc(8); b.writeBigUInt64LE(value); return b; };
  assert.deepEqual([bytes.includes(word(mine)), bytes.includes(word(others))], [true, false]);
  f.done();
});
