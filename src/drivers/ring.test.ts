import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { SRING } from "../abi/io/ring.ts";
import { FrontRing, GuestPages, seeded } from "./fixture.ts";
import { BackRing, FrontRefusal, mapRing } from "./ring.ts";

function rings(nrPages: number, slotBytes: number, start = 0) {
  const mem = new GuestPages(nrPages + 1), front = new FrontRing(mem, nrPages, slotBytes, start);
  return { mem, front, back: new BackRing(mem.words, front.pages, slotBytes) };
}

/** Both halves of a ring by the macros of ring.h; reads an operation and a number a line, prints what came of it. */
const C_RINGS = `
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#define mb() __sync_synchronize()
#define rmb() __sync_synchronize()
#define wmb() __sync_synchronize()
#include <xen/xen.h>
#include <xen/io/ring.h>
struct req { uint8_t b[SLOT]; };
struct rsp { uint8_t b[12]; };
DEFINE_RING_TYPES(t, struct req, struct rsp);
int main(void) {
  static union { t_sring_t s; uint8_t bytes[PAGES * 4096]; } u;
  t_front_ring_t f; t_back_ring_t b; char op; unsigned n; int x;
  SHARED_RING_INIT(&u.s);
  u.s.req_prod = u.s.rsp_prod = START; u.s.req_event = u.s.rsp_event = START + 1u;
  FRONT_RING_ATTACH(&f, &u.s, START, sizeof u.bytes); BACK_RING_ATTACH(&b, &u.s, START, sizeof u.bytes);
  while (scanf(" %c %u", &op, &n) == 2) switch (op) {
  case 'q': { struct req r; memset(r.b, n, SLOT); r.b[SLOT - 1] = n >> 8; *RING_GET_REQUEST(&f, f.req_prod_pvt) = r; f.req_prod_pvt++; break; }
  case 'Q': RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&f, x); printf("Q %d\\n", x); break;
  case 't': if (!RING_HAS_UNCONSUMED_REQUESTS(&b)) { puts("t none"); break; }
    { struct req r; RING_COPY_REQUEST(&b, b.req_cons, &r); b.req_cons++; printf("t %d %d %d\\n", r.b[0], r.b[SLOT / 2], r.b[SLOT - 1]); break; }
  case 'F': RING_FINAL_CHECK_FOR_REQUESTS(&b, x); printf("F %d\\n", !!x); break;
  case 'p': { struct rsp r; memset(r.b, n, 12); *RING_GET_RESPONSE(&b, b.rsp_prod_pvt) = r; b.rsp_prod_pvt++; break; }
  case 'P': RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&b, x); printf("P %d\\n", x); break;
  case 'r': if (!RING_HAS_UNCONSUMED_RESPONSES(&f)) { puts("r none"); break; }
    { struct rsp r; RING_COPY_RESPONSE(&f, f.rsp_cons, &r); f.rsp_cons++; printf("r %d %d\\n", r.b[0], r.b[11]); break; }
  case 'R': RING_FINAL_CHECK_FOR_RESPONSES(&f, x); printf("R %d\\n", !!x); break;
  }
  for (unsigned i = 0; i < sizeof u.bytes; i++) printf("%02x", u.bytes[i]);
  puts("");
}`;

for (const [nrPages, slotBytes, start] of [[1, 12, 0], [1, 112, 0xfffffff0], [4, 112, 0xffffff80]] as const) {
  test(`${nrPages} pages of ${slotBytes}-byte slots from index ${start} behave as ring.h's macros, byte for byte`, () => {
    const { mem, front, back } = rings(nrPages, slotBytes, start), rnd = seeded(nrPages * 1000 + slotBytes);
    const ops: string[] = [], ours: string[] = [];
    let nrTaken = 0;
    const step = (op: string, n: number): string | null => {
      if (op === "q") return front.put(new Uint8Array(slotBytes).fill(n & 255).fill(n >> 8, slotBytes - 1)), null;
      if (op === "Q") return `Q ${+front.push()}`;
      if (op === "t") return back.take() ? (nrTaken++, `t ${back.request[0]} ${back.request[slotBytes / 2]} ${back.request[slotBytes - 1]}`) : "t none";
      if (op === "F") return `F ${+back.finalCheck()}`;
      if (op === "p") return nrTaken--, back.response.fill(n), back.put(12), null;
      if (op === "P") return `P ${+back.push()}`;
      if (op === "r") { const got = front.take(12); return got ? `r ${got.response[0]} ${got.response[11]}` : "r none"; }
      return `R ${+front.finalCheck()}`;
    };
    for (let i = 0; i < 6000; i++) {
      const op = "qqqqQtttttFpppPrrrrR"[rnd(20)]!, n = op === "p" ? rnd(256) : rnd(65536);
      if ((op === "q" && front.nrFree === 0) || (op === "p" && nrTaken === 0)) continue;
      ops.push(`${op} ${n}`);
      const line = step(op, n);
      if (line !== null) ours.push(line);
    }
    const dir = mkdtempSync(join(tmpdir(), "ring-"));
    try {
      writeFileSync(join(dir, "ring.c"), C_RINGS);
      execFileSync("cc", ["-std=gnu11", "-w", `-DSLOT=${slotBytes}`, `-DPAGES=${nrPages}`, `-DSTART=${start}u`, "-o", join(dir, "ring"), join(dir, "ring.c")]);
      const theirs = execFileSync(join(dir, "ring"), { input: ops.join("\n"), encoding: "utf8" }).trimEnd().split("\n");
      const page = theirs.pop();
      assert.deepEqual(ours, theirs);
      assert.equal(front.pages.map((at) => mem.bytes.subarray(at, at + 4096).toHex()).join(""), page);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
}

test("a front end that claims more requests than there are slots has a dead ring, and only that", () => {
  const { front, back } = rings(1, 112);
  front.put(new Uint8Array(112));
  front.push();
  assert.ok(back.take());
  front.store(SRING.req_prod, 33);
  assert.equal(back.nrRequests, 0);
  assert.match(back.dead!, /req_prod 33 is 33 ahead of rsp_prod in a ring of 32 slots/);
  assert.equal(back.take(), false);
  assert.equal(back.finalCheck(), false);
  back.put(12);
  back.push();
  assert.equal(front.nrResponses, 1);
});

test("req_prod that goes back between the indexes is no request; behind the responses it is the ring's end", () => {
  const { front, back } = rings(1, 12);
  for (let i = 0; i < 4; i++) front.put(new Uint8Array(12));
  front.push();
  for (let i = 0; i < 4; i++) assert.ok(back.take());
  back.put(4);
  front.store(SRING.req_prod, 2);
  assert.equal(back.nrRequests, 0);
  assert.equal(back.dead, null);
  front.store(SRING.req_prod, 0);
  assert.equal(back.nrRequests, 0);
  assert.match(back.dead!, /4294967295 ahead/);
});

test("an event for several requests at once comes when the last of them is there", () => {
  const { front, back } = rings(1, 8);
  assert.equal(back.finalCheck(3), false);
  const told = [0, 1, 2, 3].map(() => {
    front.put(new Uint8Array(8));
    return front.push();
  });
  assert.deepEqual(told, [false, false, true, false]);
  assert.equal(back.finalCheck(3), true);
});

test("a ring in use goes on where its responses end: what had no answer is done again", () => {
  const { front, back, mem } = rings(2, 112);
  for (let i = 0; i < 5; i++) front.put(new Uint8Array(112).fill(i));
  front.push();
  for (let i = 0; i < 4; i++) back.take();
  back.put(12);
  back.push();
  const next = new BackRing(mem.words, front.pages, 112);
  assert.equal(next.nrRequests, 4);
  assert.ok(next.take());
  assert.equal(next.request[50], 1);
});

test("a ring of which one page cannot be mapped leaves none mapped", () => {
  const mem = new GuestPages(4), refs = [mem.grant(mem.allocate()), mem.grant(mem.allocate())];
  assert.equal(mapRing(mem, refs, "ring-ref").length, 2);
  assert.throws(() => mapRing(mem, [...refs, 77777], "ring-ref2"), (e) => e instanceof FrontRefusal && /^ring-ref2 77777 cannot be mapped \(GNTST -3\)$/.test(e.message));
  assert.equal(mem.nrMapped, 2);
});

test("what is peeked at stays in the ring, and no more is seen than waits", () => {
  const { front, back } = rings(1, 112, 0xfffffffe);
  for (let i = 1; i <= 3; i++) front.put(new Uint8Array(112).fill(i));
  assert.equal(back.peek(0), false);
  front.push();
  assert.deepEqual([2, 0, 1].map((i) => back.peek(i) && back.request[5]), [3, 1, 2]);
  assert.equal(back.peek(3), false);
  assert.deepEqual([back.nrRequests, back.take(), back.request[5], back.peek(2), back.peek(1) && back.request[5]], [3, true, 1, false, 3]);
});
