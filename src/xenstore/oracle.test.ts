/** The store against Debian's xenstored: the same requests of dom0 and of guests, malformed ones among them, get the same replies and fire the same watches. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { XENSTORE_RING_SIZE as RING, XenstoreDomainInterface as PAGE, XS } from "../abi/io/xs_wire.ts";
import { Bench } from "./fixture.ts";
import { Store } from "./store.ts";
import { encodePacket, fromBytes, type Packet, PacketReader, strings, toBytes } from "./wire.ts";

const turn = (): Promise<void> => new Promise((r) => setImmediate(r));

/** One client of xenstored: dom0 by its socket, a guest by the page that xenstored has mapped. */
abstract class Peer {
  readonly packets: Packet[] = [];
  readonly #reader = new PacketReader();
  protected take(bytes: Uint8Array): void {
    for (let rest = bytes; rest.length; ) {
      const n = Math.min(rest.length, this.#reader.wanted), packet = this.#reader.push(rest.subarray(0, n));
      rest = rest.subarray(n);
      if (packet) this.packets.push(packet);
    }
  }
  abstract send(bytes: Uint8Array): Promise<void>;
  abstract poll(): void;
  #req_id = 1;
  async ask(type: number, payload: Uint8Array, tx_id: number): Promise<Packet> {
    const req_id = this.#req_id++;
    await this.send(encodePacket({ type, req_id, tx_id, payload }));
    for (const begun = performance.now(); ;) {
      this.poll();
      if (performance.now() - begun > 20_000) throw new Error(`xenstored does not reply to type ${type} ${JSON.stringify(fromBytes(payload).slice(0, 80))}`);
      const at = this.packets.findIndex((p) => p.type !== XS.WATCH_EVENT);
      if (at >= 0) {
        const [reply] = this.packets.splice(at, 1);
        assert.ok(reply!.req_id === req_id && reply!.tx_id === tx_id);
        return reply!;
      }
      await turn();
    }
  }
}
class SocketPeer extends Peer {
  readonly socket: Socket;
  constructor(socket: Socket) {
    super();
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => this.take(chunk));
  }
  async send(bytes: Uint8Array): Promise<void> { this.socket.write(bytes); }
  poll(): void {}
}
class RingPeer extends Peer {
  readonly #fd: number;
  readonly #events: number;
  readonly #page = new Uint8Array(4096);
  readonly #words = new DataView(this.#page.buffer);
  constructor(file: string, events: number) {
    super();
    this.#fd = openSync(file, "r+");
    this.#events = events;
  }
  /** The indexes first: what lies below them is whole then. */
  #load(): void {
    readSync(this.#fd, this.#page, PAGE.req_cons.at, 64, PAGE.req_cons.at);
    readSync(this.#fd, this.#page, 0, PAGE.req_cons.at, 0);
  }
  #index(field: { at: number }): number { return this.#words.getUint32(field.at, true); }
  #put(field: { at: number }, value: number): void {
    const word = new Uint8Array(4);
    new DataView(word.buffer).setUint32(0, value, true);
    writeSync(this.#fd, word, 0, 4, field.at);
    writeSync(this.#events, "e");
  }
  async send(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length; ) {
      this.#load();
      const prod = this.#index(PAGE.req_prod), at = prod & (RING - 1), n = Math.min(rest.length, RING - ((prod - this.#index(PAGE.req_cons)) >>> 0), RING - at);
      if (n) {
        writeSync(this.#fd, rest, 0, n, PAGE.req.at + at);
        this.#put(PAGE.req_prod, (prod + n) >>> 0);
        rest = rest.subarray(n);
      }
      this.poll();
      if (!n) await turn();
    }
  }
  poll(): void {
    this.#load();
    const cons = this.#index(PAGE.rsp_cons), used = (this.#index(PAGE.rsp_prod) - cons) >>> 0, at = cons & (RING - 1), n = Math.min(used, RING - at);
    if (!n) return;
    this.take(this.#page.slice(PAGE.rsp.at + at, PAGE.rsp.at + at + n));
    this.#put(PAGE.rsp_cons, (cons + n) >>> 0);
    if (n < used) this.poll();
  }
  close(): void { closeSync(this.#fd); }
}

/** Debian's xenstored, in a folder of its own. */
async function stock(domids: readonly number[]): Promise<{ peers: Peer[]; stop: () => void; remove: (domid: number) => void }> {
  const folder = mkdtempSync(join(tmpdir(), "domus-xenstored-")), shim = join(folder, "shim.so");
  execFileSync("gcc", ["-shared", "-fPIC", "-O1", "-w", "-o", shim, fileURLToPath(new URL("xenstored-shim.c", import.meta.url)), "-ldl"]);
  execFileSync("mkfifo", [join(folder, "events")]);
  writeFileSync(join(folder, "port"), "1");
  for (const d of [0, ...domids]) writeFileSync(join(folder, `ring-${d}`), new Uint8Array(4096));
  const binary = readdirSync("/usr/lib").filter((f) => f.startsWith("xen-")).map((f) => join("/usr/lib", f, "bin/xenstored")).find((f) => existsSync(f));
  assert.ok(binary, "xenstored of the package xen-utils");
  const path = join(folder, "socket"), env = { ...process.env, LD_PRELOAD: shim, XENSTORED_RUNDIR: folder, XENSTORED_ROOTDIR: folder, XENSTORED_PATH: path };
  const child = spawn(binary, ["-N", "-F", join(folder, "pid")], { env, stdio: "ignore" });
  let hasEnded = false;
  child.on("exit", () => { hasEnded = true; });
  let socket: Socket | undefined;
  for (; !socket; await new Promise((r) => setTimeout(r, 5))) {
    assert.ok(!hasEnded, "xenstored has started");
    const tried = connect(path);
    socket = await new Promise((resolve) => tried.once("connect", () => resolve(tried)).once("error", () => resolve(undefined)));
  }
  const events = openSync(join(folder, "events"), "r+"), dom0 = new SocketPeer(socket), rings = domids.map((d) => new RingPeer(join(folder, `ring-${d}`), events));
  return {
    peers: [dom0, ...rings],
    remove: (domid) => { rmSync(join(folder, `ring-${domid}`)); writeSync(events, "v"); },
    stop: () => {
      dom0.socket.destroy();
      child.kill("SIGKILL");
      for (const r of rings) r.close();
      closeSync(events);
      rmSync(folder, { recursive: true });
    },
  };
}

/** Numbers that repeat. */
function seeded(seed: number): (n: number) => number {
  return (n) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
}
const PATHS = [
  "a", "b", "a/b", "a/b/c", "b/a", "/local/domain/1", "/local/domain/1/a", "/local/domain/2", "/local/domain/2/a/b", "/shared", "/shared/x", "/shared/x/y", "/", "/local/domain/3/x", "/none/x",
  "@releaseDomain", "@introduceDomain",
];
const BAD_PATHS = ["", "//", "/a/", "a//b", "a b", "/a\n", "@x/", "\xff", "x".repeat(2049)];
/** Types whose malformed requests xenstored 4.17 answers as later ones do; of some others it dies. */
const MALFORMED = new Set<number>([XS.WRITE, XS.WATCH, XS.SET_PERMS, XS.DIRECTORY_PART]);
const WHAT = [XS.READ, XS.DIRECTORY, XS.GET_PERMS, XS.WRITE, XS.WRITE, XS.WRITE, XS.MKDIR, XS.RM, XS.SET_PERMS, XS.SET_PERMS, XS.WATCH, XS.UNWATCH, XS.DIRECTORY_PART, XS.GET_DOMAIN_PATH, XS.IS_DOMAIN_INTRODUCED,
  XS.RESET_WATCHES, 20, XS.WATCH_EVENT, XS.ERROR, 0xffff, XS.RELEASE, XS.RESUME, XS.SET_TARGET];

/** Both stores, asked the same. */
class Both {
  readonly theirs: Awaited<ReturnType<typeof stock>>;
  readonly bench = new Bench(new Store(), []);
  readonly mine = [this.bench.dom0, this.bench.connect(1), this.bench.connect(2)];
  /** who is asked whether it heard something */
  present = [0, 1, 2];
  /** per client, the open transactions' numbers there and here */
  readonly open: [number, number][][] = [[], [], []];
  /** where they differed */
  readonly differ: string[] = [];
  private constructor(theirs: Awaited<ReturnType<typeof stock>>) {
    this.theirs = theirs;
  }
  static async start(): Promise<Both> {
    const both = new Both(await stock([1, 2]));
    both.bench.ask(both.bench.dom0, XS.MKDIR, "/tool/xenstored\0");
    for (const d of [1, 2]) {
      assert.equal((await both.theirs.peers[0]!.ask(XS.INTRODUCE, strings(String(d), "1", "1"), 0)).type, XS.INTRODUCE);
      both.bench.store.introduce(d);
    }
    for (const d of [1, 2]) {
      await both.ask(0, XS.MKDIR, strings(`/local/domain/${d}`));
      await both.ask(0, XS.SET_PERMS, strings(`/local/domain/${d}`, `n${d}`));
    }
    await both.ask(0, XS.MKDIR, strings("/shared"));
    await both.ask(0, XS.SET_PERMS, strings("/shared", "n0", "b1", "r2"));
    return both;
  }
  /** @returns xenstored's reply as text, "!" before an error's word */
  async ask(who: number, type: number, payload: Uint8Array, on?: [number, number]): Promise<string> {
    const { peers } = this.theirs, { bench } = this, reply = await peers[who]!.ask(type, payload, on?.[0] ?? 0);
    let [a, m] = [reply.type === XS.ERROR ? `!${fromBytes(reply.payload).slice(0, -1)}` : fromBytes(reply.payload), bench.ask(this.mine[who]!, type, payload, on?.[1] ?? 0)];
    if (type === XS.DIRECTORY_PART) [a, m] = [a, m].map((s) => s.replace(/^\d+\0/, "")) as [string, string];  // generations count differently
    if (type === XS.GET_PERMS && !this.present.includes(2)) a = a.replace(/(?<=\0)[nrwb]2\0/g, "");  // a released domain's entries are void there, and gone here and in later ones
    if (type === XS.TRANSACTION_START && !a.startsWith("!") && !m.startsWith("!")) {
      this.open[who]!.push([Number.parseInt(a, 10), Number.parseInt(m, 10)]);
      return a;
    }
    const what = `d${who} type ${type}${on ? " in a transaction" : ""} ${JSON.stringify(fromBytes(payload).slice(0, 80))}`;
    if (a !== m) this.differ.push(`${what}: theirs ${JSON.stringify(a)}, ours ${JSON.stringify(m)}`);
    for (const i of this.present) {
      await peers[i]!.ask(XS.GET_DOMAIN_PATH, strings("1"), 0);  // after which the events are here
      const heard = peers[i]!.packets.splice(0).map((p) => fromBytes(p.payload).slice(0, -1).replace("\0", " ")), here = bench.events(this.mine[i]!);
      // Of equal events that wait it sends one: each is compared once.
      if ([...new Set(heard)].sort().join() !== [...new Set(here)].sort().join()) this.differ.push(`${what}: d${i} hears ${JSON.stringify(heard)}, ours ${JSON.stringify(here)}`);
    }
    return a;
  }
  /** Compare all there is below a path. */
  async compare(path: string): Promise<void> {
    await this.ask(0, XS.READ, strings(path));
    await this.ask(0, XS.GET_PERMS, strings(path));
    const names = await this.ask(0, XS.DIRECTORY, strings(path));
    for (const name of names.startsWith("!") ? [] : names.split("\0").slice(0, -1)) await this.compare(path === "/" ? `/${name}` : `${path}/${name}`);
  }
}

test("xenstored and the store answer alike, whoever asks whatever", async () => {
  const both = await Both.start(), random = seeded(1), pick = <T>(list: readonly T[]): T => list[random(list.length)]!, nrSteps = 2500;
  const { open, differ } = both, ask = both.ask.bind(both);
  try {
    for (let i = 0; i < nrSteps && differ.length === 0; i++) {
      const who = random(3), mineOpen = open[who]!, on = random(2) ? pick(mineOpen) : undefined;
      if (random(12) === 0 && mineOpen.length < 8) { await ask(who, XS.TRANSACTION_START, strings(""), random(4) ? undefined : on); continue; }
      if (on && random(6) === 0) {
        mineOpen.splice(mineOpen.indexOf(on), 1);
        await ask(who, XS.TRANSACTION_END, strings(pick(["T", "T", "T", "F"])), on);
        continue;
      }
      const type = pick(WHAT), isOf = (...types: number[]): boolean => types.includes(type);
      const given = random(15) || isOf(XS.WATCH, XS.UNWATCH) ? pick(PATHS) : pick(BAD_PATHS), path = given.startsWith("@") && isOf(XS.GET_PERMS, XS.SET_PERMS) ? "a" : given, perms = Array.from({ length: 1 + random(3) }, () => `${pick(["n", "r", "w", "b"])}${random(3)}`);
      const payload = random(15) === 0 && MALFORMED.has(type) ? pick([new Uint8Array(0), Uint8Array.of(0), toBytes(path), toBytes(`${path}\0x`), strings(path, "x", "y", "z"), toBytes("\0\0\0")])
        : type === XS.WRITE ? toBytes(`${path}\0${pick(["", "v", "w\0w", "v".repeat(random(200)), "v".repeat(1950 + random(80))])}`)
        : type === XS.SET_PERMS ? strings(path, ...(random(20) ? perms : pick([["x1"], ["n"], ["n0", ""], ["1"], Array(7).fill("n1")])))
        : type === XS.WATCH || type === XS.UNWATCH ? strings(path, `t${random(3)}`)
        : type === XS.DIRECTORY_PART ? strings(path, String(random(4)))
        : type === XS.SET_TARGET ? strings("7", "1")
        : type === XS.GET_DOMAIN_PATH || type === XS.IS_DOMAIN_INTRODUCED || type === XS.RELEASE || type === XS.RESUME ? strings(pick(["0", "7"])) : strings(path);
      const reply = await ask(who, type, payload, on);
      // There, a transaction in which a write was refused for want of room cannot be committed (ENOMEM), and a refusal by permission has looked at the
      // parent too and may conflict on it. Neither holds here.
      if (on && (reply === "!ENOSPC" || reply === "!EACCES")) await ask(who, XS.TRANSACTION_END, strings("F"), mineOpen.splice(mineOpen.indexOf(on), 1)[0]);
    }
    await both.compare("/");
    assert.deepEqual(differ, []);
    assert.deepEqual(both.bench.store.tree.flaws(), []);
  } finally {
    both.theirs.stop();
  }
});

test("a domain's last nodes, its quota's end, and what is left when it is released, are the same", async () => {
  const both = await Both.start(), { differ } = both;
  try {
    for (const [who, path] of [[0, "/"], [1, "@releaseDomain"], [0, "@releaseDomain"], [1, "/shared"]] as const) await both.ask(who, XS.WATCH, strings(path, "t"));
    await both.ask(1, XS.MKDIR, strings("/shared/ones"));
    await both.ask(1, XS.SET_PERMS, strings("/shared/ones", "n1", "b2"));
    await both.ask(2, XS.WRITE, toBytes("/shared/ones/twos/deep\0v"));
    await both.ask(0, XS.WRITE, toBytes("/shared/ones/twos/deep/zeros\0v"));
    await both.ask(0, XS.SET_PERMS, strings("/shared/ones/twos/deep/zeros", "n0", "r2"));
    await both.ask(1, XS.SET_PERMS, strings("/shared/ones", "n1", "r2", "b0"));
    const present = both.present;
    both.present = [];
    for (let i = 0; i < 980; i++) await both.ask(2, XS.MKDIR, strings(`d${i % 9}/n${i}`));
    both.present = present;
    const replies = new Set<string>();
    for (let i = 0; i < 12; i++) replies.add(await both.ask(2, XS.MKDIR, strings(`more${i}/x`)));
    assert.deepEqual(replies, new Set(["OK\0", "!ENOSPC"]));
    await both.ask(2, XS.RM, strings("d0/n0"));
    for (let i = 0; i < 3; i++) await both.ask(2, XS.MKDIR, strings(`again${i}`));
    both.present = [0, 1];
    for (const who of [0, 1]) both.bench.events(both.mine[who]!);
    await both.theirs.peers[0]!.ask(XS.GET_DOMAIN_PATH, strings("1"), 0);
    both.theirs.peers[0]!.packets.length = 0;
    await both.ask(0, XS.RELEASE, strings("2"));
    await both.compare("/");
    await both.ask(0, XS.RELEASE, strings("2"));
    assert.deepEqual(differ, []);
  } finally {
    both.theirs.stop();
  }
});
