/**
 * A guest gone mad against the back end of a shared folder: half-right and wild messages, cut short, run together and damaged, several at once over both rings; wild indexes; replies left
 * unread; pages rewritten while they are read; and a host that exchanges folders and links meanwhile. The back end may answer errors or stop the device; it may not throw, touch a page that
 * is not mapped for it, show bytes that are not of the folder, change what is outside, or hold more than it may.
 */
import assert from "node:assert/strict";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Xen9pfsDataIntf as INTF } from "../../src/abi/io/9pfs.ts";
import { P9Back } from "../../src/drivers/9p/back.ts";
import { FlexFront } from "../../src/drivers/9p/fixture.ts";
import { nodeFolder } from "../../src/drivers/9p/folder.node.ts";
import { HEADER_BYTES, NOFID, NOTAG, Reply, RLERROR, T, VERSION } from "../../src/drivers/9p/protocol.ts";
import { keysOf } from "../../src/drivers/block/fixture.ts";
import { GuestPages, seeded } from "../../src/drivers/fixture.ts";

const NR_RINGS = 2, ORDER = 2, NR_PAGES = 32, ACTS = 250, PAGE_BYTES = 4096;
/** What stands in pages that are not the rings', and in files outside. */
const UNTOUCHED = 0xee, SECRET = "the host's secret, which is in no file of the folder";
const NAMES = ["a", "b", "c", "link", "out", "dir", "pipe", "..", ".", "", "a/b", "n".repeat(255), "n".repeat(256), "\xff\0", "/etc"];
const TYPES = Object.values(T).filter((type) => type !== T.version && type !== T.lerror);

/** What happened, to see that the campaign reaches all of it. */
export type Tally = { replies: number; errors: number; deaths: number; made: number; read: number; unread: number };

class MadGuest {
  readonly rnd: (n: number) => number;
  readonly tally: Tally;
  readonly mem = new GuestPages(NR_PAGES);
  readonly rings = Array.from({ length: NR_RINGS }, () => new FlexFront(this.mem, ORDER, 0));
  readonly back: P9Back;
  readonly #bells = new Map<number, () => void>();
  readonly broken: string[] = [];
  readonly log: string[] = [];
  isDeaf = false;
  #tag = 0;

  constructor(seed: number, tally: Tally, folder: Awaited<ReturnType<ReturnType<typeof nodeFolder>["open"]>>) {
    this.rnd = seeded(seed);
    this.tally = tally;
    this.back = new P9Back({
      name: "mad", folder, isReadonly: this.isOne(6), grants: this.mem, log: (s) => this.log.push(s),
      bind: (port, rung) => {
        this.#bells.set(port, rung);
        return { notify() {}, isHeld: () => true, close: () => this.#bells.delete(port) };
      },
    });
    this.back.onBroken = (why) => this.broken.push(why);
  }
  isOne(inHowMany: number): boolean { return this.rnd(inHowMany) === 0; }
  #wild(): number { return this.isOne(2) ? this.rnd(2 ** 31) * 2 : this.isOne(2) ? 0xffffffff - this.rnd(8) : this.rnd(70000); }
  #fid(): number { return this.isOne(40) ? this.#wild() : this.isOne(3) ? 0 : 1 + this.rnd(11); }
  #name(): string { return this.isOne(3) ? NAMES[this.rnd(NAMES.length)]! : NAMES[this.rnd(6)]!; }
  #number(usual: number): number { return this.isOne(15) ? this.#wild() : this.rnd(usual); }

  /** A message that is right but for now and then a field. */
  #message(): Uint8Array<ArrayBuffer> {
    const { rnd } = this, type = this.isOne(60) ? rnd(256) : this.isOne(400) ? T.version : TYPES[rnd(TYPES.length)]!, w = new Reply(8192), fid = (): Reply => w.u32(this.#fid()), name = (): Reply => w.text(this.#name()), u32 = (usual: number): Reply => w.u32(this.#number(usual));
    const u64 = (usual: number): Reply => w.u64(this.isOne(15) ? BigInt(this.#wild()) << BigInt(rnd(40)) : BigInt(rnd(usual)));
    switch (type) {
      case T.version: if (this.isOne(4)) { u32(70000).text(this.isOne(3) ? "9P2000" : VERSION); } break;
      case T.attach: fid().u32(this.isOne(20) ? 1 : NOFID).text("u").text("").u32(rnd(3)); break;
      case T.walk: { fid(); fid(); const nr = this.isOne(30) ? rnd(20) : rnd(4); w.u16(nr); for (let i = 0; i < nr; i++) name(); break; }
      case T.lopen: fid(); u32(4); break;
      case T.lcreate: fid(); name(); u32(0o1400); u32(0o10000); u32(3); break;
      case T.read: case T.readdir: fid(); u64(200); u32(9000); break;
      case T.write: { fid(); u64(300); const n = rnd(600); w.u32(this.isOne(30) ? this.#wild() : n); w.at += n; break; }
      case T.setattr: fid(); w.u32(rnd(512)); u32(0o10000); u32(3); u32(3); u64(400); for (let i = 0; i < 4; i++) u64(1_000_000_000); break;
      case T.symlink: fid(); name(); w.text(this.isOne(2) ? "../secret" : this.#name()); u32(3); break;
      case T.mknod: fid(); name(); w.u32(this.isOne(3) ? 0o100644 : this.#wild()); u32(5); u32(5); u32(3); break;
      case T.mkdir: fid(); name(); u32(0o10000); u32(3); break;
      case T.link: case T.rename: fid(); fid(); name(); break;
      case T.renameat: fid(); name(); fid(); name(); break;
      case T.unlinkat: fid(); name(); w.u32(this.isOne(2) ? 0x200 : 0); break;
      case T.clunk: case T.remove: w.u32(this.isOne(60) ? this.#wild() : this.isOne(100) ? 0 : 1 + rnd(11)); break;
      case T.flush: w.u16(rnd(40)); break;
      default: fid(); u64(5); u32(5); name(); name();
    }
    const message = w.end(type, type === T.version && !this.isOne(10) ? NOTAG : this.isOne(3000) ? rnd(40) : (this.#tag = (this.#tag + 1) % 2000));
    if (this.isOne(300)) message[rnd(message.length)] = rnd(256);
    if (this.isOne(600)) return message.slice(0, HEADER_BYTES + rnd(Math.max(1, message.length - HEADER_BYTES)));
    return message;
  }
  /** Begin as a guest does that means it. */
  hello(): void {
    this.#send(0, new Reply(64).u32(this.isOne(3) ? 4096 : 65536).text(VERSION).end(T.version, NOTAG));
    this.#send(0, new Reply(64).u32(0).u32(NOFID).text("u").text("").u32(0).end(T.attach, 1999));
  }
  #send(nr: number, message: Uint8Array): void {
    const ring = this.rings[nr]!;
    if (ring.nrFree < message.length || ring.nrFree > ring.sizeBytes) return;
    ring.write(message);
    this.knock(nr);
  }
  #step = 0;
  /** The next of what a guest does that means it: reach a name, open it, read or list it, let go. */
  work(): void {
    const fid = 5 + (this.#step >> 2) % 3, w = new Reply(1024).u32([0, fid, fid, fid][this.#step & 3]!), type = [T.walk, T.lopen, this.isOne(2) ? T.read : T.readdir, T.clunk][this.#step & 3]!;
    if (type === T.walk) w.u32(fid).u16(1).text(NAMES[this.rnd(6)]!);
    else if (type !== T.clunk) w.u32(0);
    if (type === T.read || type === T.readdir) w.u32(0).u32(this.rnd(4000));
    this.#step++;
    this.#send(0, w.end(type, 2000 + (this.#step % 500)));
  }
  send(): void { for (let n = 1 + this.rnd(6); n > 0; n--) this.#send(this.rnd(NR_RINGS), this.#message()); }
  knock(nr = this.rnd(NR_RINGS)): void { this.#bells.get(nr)?.(); }
  hear(): void {
    if (this.isDeaf) { this.tally.unread++; return; }
    for (const [nr, ring] of this.rings.entries()) {
      if (((ring.load(INTF.in_prod.at) - ring.inCons) >>> 0) > ring.sizeBytes) return;        // it has scribbled there itself
      for (;;) {
        let reply: Uint8Array<ArrayBuffer> | null = null;
        try { reply = ring.read(); } catch { return; }        // the same
        if (!reply) break;
        this.tally.replies++;
        if (reply[4] === RLERROR) this.tally.errors++;
        if (reply[4] === T.read + 1) this.tally.read++;
        if (reply[4] === T.lcreate + 1 || reply[4] === T.mkdir + 1) this.tally.made++;
        assert.ok(!Buffer.from(reply.buffer, reply.byteOffset, reply.length).includes(SECRET), "bytes of outside");
      }
      this.knock(nr);
    }
  }
  scribble(): void {
    const ring = this.rings[this.rnd(NR_RINGS)]!;
    const where = this.rnd(3);
    if (where === 0) this.mem.bytes[ring.pages[this.rnd(ring.pages.length)]! + this.rnd(PAGE_BYTES)] = this.rnd(256);
    else if (where === 1) ring.store(4 * this.rnd(1024), this.#wild());
    else ring.store([INTF.in_cons.at, INTF.out_prod.at][this.rnd(2)]!, this.isOne(2) ? this.#wild() : ring.outProd + this.rnd(64));
  }
  connect(): Promise<void> { return this.back.connect(keysOf({ version: 1, "num-rings": NR_RINGS, ...Object.fromEntries(this.rings.flatMap((r, i) => [[`ring-ref${i}`, r.intfRef], [`event-channel-${i}`, i]])) })); }
  /** Pages that are nobody's are as they were. */
  checkPages(): void {
    const known = new Set(this.rings.flatMap((r) => [r.intf, ...r.pages]));
    for (let at = PAGE_BYTES; at < NR_PAGES * PAGE_BYTES; at += PAGE_BYTES) assert.ok(known.has(at) || this.mem.bytes.subarray(at, at + PAGE_BYTES).every((b) => b === UNTOUCHED), `page ${at} was written`);
  }
}

const turn = (): Promise<void> => new Promise((done) => { setImmediate(done); });
/** One guest from its making to its end. @throws when the back end misbehaves */
async function oneGuest(seed: number, tally: Tally, base: string): Promise<void> {
  const root = join(base, "share"), outside = join(base, "secret");
  fs.mkdirSync(join(root, "dir/sub"), { recursive: true });
  fs.mkdirSync(outside);
  for (const path of [join(outside, "a"), join(base, "a")]) fs.writeFileSync(path, SECRET);
  fs.writeFileSync(join(root, "a"), "text");
  for (const [name, target] of [["link", "a"], ["out", "../secret"]] as const) fs.symlinkSync(target, join(root, name));
  const folder = await nodeFolder(root).open(), g = new MadGuest(seed, tally, folder), { back, mem } = g;
  for (let at = PAGE_BYTES; at < NR_PAGES * PAGE_BYTES; at += PAGE_BYTES) if (!g.rings.some((r) => r.intf === at || r.pages.includes(at))) mem.bytes.fill(UNTOUCHED, at, at + PAGE_BYTES);
  await g.connect();
  g.hello();
  for (let i = 0; i < ACTS && g.broken.length === 0; i++) {
    const act = g.rnd(100);
    if (act < 35) g.send();
    else if (act < 60) g.work();
    else if (act < 85) g.hear();
    else if (act < 87) g.isDeaf = !g.isDeaf;
    else if (act < 90) g.knock();
    else if (act < 91 && g.isOne(3)) g.scribble();
    else if (act < 94) try { fs.renameSync(join(root, "dir"), join(root, "was")); fs.renameSync(join(root, "out"), join(root, "dir")); } catch { /* the guest was there */ }
    else if (act < 97) try { fs.renameSync(join(root, "dir"), join(root, "out")); fs.renameSync(join(root, "was"), join(root, "dir")); } catch { /* the guest was there */ }
    if (act >= 97 || g.isOne(3)) await turn();
    const { nrPending } = back.describe() as { nrPending: number };
    assert.ok(nrPending <= 64, `${nrPending} requests on their way`);
    assert.deepEqual(mem.faults, []);
  }
  g.isDeaf = false;
  for (let i = 0; i < 3; i++) { g.hear(); await turn(); }
  if (g.broken.length) tally.deaths++;
  assert.ok(g.broken.length <= 1);
  assert.deepEqual(g.log, [], "an error of ours");
  await back.disconnect();
  await folder.close();
  g.checkPages();
  assert.equal(mem.nrMapped, 0);
  for (const path of [join(outside, "a"), join(base, "a")]) assert.equal(fs.readFileSync(path, "utf8"), SECRET);
  assert.deepEqual([fs.readdirSync(outside), fs.readdirSync(base).sort()], [["a"], ["a", "secret", "share"]]);
}

/** Run guests of seeds `seed`, `seed` + 1 ... while `goOn(number done)`. @throws with the seed in the message */
export async function fuzzShares(seed: number, goOn: (nrDone: number) => boolean): Promise<Tally & { nrDone: number }> {
  const tally: Tally = { replies: 0, errors: 0, deaths: 0, made: 0, read: 0, unread: 0 };
  let nrDone = 0;
  for (; goOn(nrDone); nrDone++) {
    const base = fs.mkdtempSync(join(tmpdir(), "domus-9p-fuzz-"));
    try {
      await oneGuest(seed + nrDone, tally, base);
    } catch (e) {
      throw new Error(`Seed ${seed + nrDone}: ${(e as Error).message}`, { cause: e });
    } finally { fs.rmSync(base, { recursive: true, force: true }); }
  }
  return { ...tally, nrDone };
}
