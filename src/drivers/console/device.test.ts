import assert from "node:assert/strict";
import { test } from "node:test";
import { XenconsInterface as PAGE } from "../../abi/io/console.ts";
import { keysOf } from "../block/fixture.ts";
import { GuestPages } from "../fixture.ts";
import { FrontRefusal } from "../ring.ts";
import { ConsoleDevice } from "./device.ts";
import { ConsoleViews } from "./views.ts";

function setUp() {
  const mem = new GuestPages(8), page = mem.allocate(), views = new ConsoleViews(), bells = new Map<number, () => void>();
  const device = new ConsoleDevice({
    name: "d1 console 1", grants: mem, views, log: () => {},
    bind: (port, rung) => {
      if (port !== 3) throw new FrontRefusal(`port ${port}`);
      bells.set(port, rung);
      return { notify: () => {}, isHeld: () => true, close: () => { bells.delete(port); } };
    },
  });
  return { mem, page, views, bells, device, ref: mem.grant(page), word: (f: { at: number }) => Atomics.load(mem.words, (page + f.at) / 4) };
}

test("a further console: what the guest says is seen, what is typed goes in, and a front end may come anew", async () => {
  const t = setUp(), keyboard = t.views.takeKeyboard();
  for (const round of [1, 2]) {
    t.device.connect(keysOf({ "ring-ref": t.ref, port: 3 }));
    t.mem.bytes.set(new TextEncoder().encode("hi"), t.page + PAGE.out.at + t.word(PAGE.out_cons));
    Atomics.add(t.mem.words, (t.page + PAGE.out_prod.at) / 4, 2);
    t.bells.get(3)!();
    assert.equal(new TextDecoder().decode(t.views.backlog), "hi".repeat(round));
    await keyboard.write(new Uint8Array([65]));
    assert.equal(t.word(PAGE.in_prod), round);
    t.device.disconnect();
    assert.deepEqual([t.bells.size, t.mem.nrMapped], [0, 0]);
    await keyboard.write(new Uint8Array([66]));
    assert.equal(t.word(PAGE.in_prod), round, "typed while there is no console: lost");
  }
  assert.deepEqual(t.mem.faults, []);
});

test("typing that waits for room in the ring ends with the front end", async () => {
  const t = setUp(), keyboard = t.views.takeKeyboard();
  t.device.connect(keysOf({ "ring-ref": t.ref, port: 3 }));
  const typed = keyboard.write(new Uint8Array(PAGE.in.size + 1));
  t.device.disconnect();
  await typed;
});

test("a page or port that is none leaves nothing mapped", () => {
  for (const keys of [{ "ring-ref": 0x999, port: 3 }, { port: 3 }, { port: 4 }] as Record<string, number>[]) {
    const t = setUp();
    assert.throws(() => t.device.connect(keysOf({ ...("ring-ref" in keys || keys["port"] === 3 ? {} : { "ring-ref": t.ref }), ...keys })));
    assert.deepEqual([t.bells.size, t.mem.nrMapped], [0, 0]);
  }
});
