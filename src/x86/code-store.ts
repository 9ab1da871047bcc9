/**
 * WebAssembly modules that the pCPUs of a machine share, in machine memory: what one of them has translated the others take as it is, and V8, which knows modules by their bytes, has
 * compiled once for all. A module has members, its functions in order: each has keys, under which it is looked for, and bytes of whoever made it, which say what it is fit for.
 * A module without code has members that are all there is (shared-shapes.ts).
 *
 *     0        STORE header, one page
 *     0x1000   heads of the chains of members, by hash of their keys: NR_HEADS words for each half
 *              two halves of modules, one behind the other
 *
 * Modules are added to one half until it is full; then the other one, which is older, is emptied and comes next. Reading takes no lock: who has read what a member says asks `isCurrent` before
 * it is believed. Memory that is zero is an empty store. What is stored is trusted like the engine's own sources (it is code); a file that is cut or damaged is refused whole.
 */
import { assert } from "../base/errors.ts";
import { bytes, f64, i32, struct, u32 } from "../base/struct.ts";
import type { Views } from "../base/views.ts";
import { withLock } from "../memory/lock.ts";
import type { MachineMemory } from "../memory/machine.ts";
import { mergeModules } from "../wasm/merge.ts";

/** Room for a machine's store. Pages nobody touches cost nothing. */
export const CODE_STORE_BYTES = 64 << 20;

const HALF = struct(16, { /** how often it was emptied */ epoch: i32(0), /** bytes taken */ used: u32(4), nrModules: u32(8), nrMembers: u32(12) });
const STORE = struct(4096, { lock: i32(0), /** the half that is added to */ current: i32(4), /** modules added since the store was made or read */ added: u32(8), halves: bytes(16, 2 * HALF.sizeof) });
const HEAD_BITS = 15, NR_HEADS = 1 << HEAD_BITS, HEADS_AT = STORE.sizeof, HALVES_AT = HEADS_AT + 2 * NR_HEADS * 4;
/** A module: its members follow, each with its bytes behind it, then the other keys of each, then the module's own bytes; all of them begin at multiples of ALIGN. */
const MODULE = struct(16, { size: u32(0), nrMembers: u32(4), wasmBytes: u32(8), nrOthers: u32(12) });
/** A key of a member. next: of its chain, an address or 0; at, size: the member's bytes, from the module's begin */
const KEY = struct(32, { key: f64(0), next: u32(8), module: u32(12), index: u32(16), at: u32(20), size: u32(24) });
const ALIGN = 8, up = (n: number): number => Math.ceil(n / ALIGN) * ALIGN;
/** A chain that is longer is none: the half was emptied meanwhile. */
const CHAIN_MAX = 4096;
/** In a file, modules that were made one after the other are one, up to so many bytes: two modules in three are a region each, and V8 takes 0.2 ms for a module and its instance. */
const MERGED_BYTES = 64 << 10;

const MAGIC = 0x636d4944, VERSION = 6, FILE = struct(24, { magic: u32(0), version: u32(4), sum: u32(8), nrModules: u32(12), engineBytes: u32(16) });

/** module: the number of the module, which no other one will ever have; index: which of its functions. */
export type Member = { readonly module: number; readonly index: number; /** in machine memory */ readonly bytes: Uint8Array };
/** keys: the first one of each member */
export type StoredModule = { readonly wasm: Uint8Array<ArrayBuffer>; readonly keys: readonly number[] };
/** What a member is made of; it is found under each of `keys`. */
export type NewMember = { readonly keys: readonly number[]; readonly bytes: Uint8Array };

/** A module in machine memory. */
type Read = { readonly blob: Uint8Array; readonly wasm: Uint8Array; readonly members: readonly NewMember[] };
/** Stubs and regions are modules apart (Interpreter.borrowStub takes all of one): regions' keys are below 0. What has no code is neither. */
const kindOf = ({ wasm, members }: Read): "data" | "regions" | "stubs" => (wasm.length === 0 ? "data" : (members[0]?.keys[0] ?? 0) < 0 ? "regions" : "stubs");

export class CodeStore {
  private readonly v: Views;
  private readonly at: number;
  private readonly halfBytes: number;

  /** @param at where machine memory has room for it, and how much */
  constructor(v: Views, at: number, sizeBytes: number) {
    this.v = v; this.at = at; this.halfBytes = Math.floor((sizeBytes - HALVES_AT) / 2 / ALIGN) * ALIGN;
    assert(at % ALIGN === 0 && this.halfBytes > 0, `code store of ${sizeBytes} bytes at ${at}`);
  }

  /** A machine's, or null where it was made without room for one. */
  static of({ codeStore, views }: MachineMemory): CodeStore | null { return codeStore && new CodeStore(views, codeStore.at, codeStore.sizeBytes); }

  private halfAt(n: number): number { return this.at + STORE.halves.at + n * HALF.sizeof; }
  private bytesAt(n: number): number { return this.at + HALVES_AT + n * this.halfBytes; }
  /** index of a chain's head */
  private head(half: number, key: number): number {
    const k = Math.abs(key);
    return (this.at + HEADS_AT >>> 2) + half * NR_HEADS + (Math.imul(k % 4294967296 ^ Math.imul(k / 4294967296, 0x85ebca6b), 0x9e3779b1) >>> 32 - HEAD_BITS);
  }
  private epoch(half: number): number { return Atomics.load(this.v.i32, this.halfAt(half) + HALF.epoch.at >>> 2); }
  private halfOf(address: number): number { return address < this.bytesAt(1) ? 0 : 1; }
  private idOf(address: number): number { return this.epoch(this.halfOf(address)) * 2 ** 32 + address; }

  get nrMembers(): number { return [0, 1].reduce((n, half) => n + HALF.nrMembers.get(this.v.dv, this.halfAt(half)), 0); }
  get nrAdded(): number { return STORE.added.get(this.v.dv, this.at); }

  /** Members with that key, the newest first. */
  find(key: number): Member[] {
    const { i32, dv, u8 } = this.v, found: Member[] = [], current = i32[this.at + STORE.current.at >>> 2]! & 1;
    for (const half of [current, 1 - current]) {
      const head = this.head(half, key);
      if (Atomics.load(i32, head) === 0) continue;
      const epoch = this.epoch(half), from = this.bytesAt(half), to = from + this.halfBytes, inHalf: Member[] = [];
      let member = Atomics.load(i32, head) >>> 0;
      for (let n = 0; member >= from && member <= to - KEY.sizeof && n < CHAIN_MAX; n++, member = KEY.next.get(dv, member)) {
        if (KEY.key.get(dv, member) !== key) continue;
        const module = KEY.module.get(dv, member), at = module + KEY.at.get(dv, member);
        inHalf.push({ module: epoch * 2 ** 32 + module, index: KEY.index.get(dv, member), bytes: u8.subarray(at, Math.min(to, at + KEY.size.get(dv, member))) });
      }
      if (this.epoch(half) === epoch) found.push(...inHalf);
    }
    return found;
  }
  /** Is there any with that key, most likely? */
  mayHave(key: number): boolean { const { i32 } = this.v; return i32[this.head(0, key)] !== 0 || i32[this.head(1, key)] !== 0; }
  /** Has it been there since `module` was told of? */
  isCurrent(module: number): boolean { return this.idOf(module % 2 ** 32) === module; }
  /** A copy of a module, or null if it is not there any more. */
  module(module: number): StoredModule | null {
    if (!this.isCurrent(module)) return null;
    const { dv, u8 } = this.v, address = module % 2 ** 32, end = this.bytesAt(this.halfOf(address)) + this.halfBytes, nrMembers = MODULE.nrMembers.get(dv, address), wasmBytes = MODULE.wasmBytes.get(dv, address), keys: number[] = [];
    let at = address + MODULE.sizeof;
    for (let n = 0; n < nrMembers && at < end - KEY.sizeof; n++) { keys.push(KEY.key.get(dv, at)); at += KEY.sizeof + up(KEY.size.get(dv, at)); }
    at += MODULE.nrOthers.get(dv, address) * KEY.sizeof;
    const wasm = u8.slice(at, Math.min(end, at + wasmBytes)) as Uint8Array<ArrayBuffer>;
    return this.isCurrent(module) ? { wasm, keys } : null;
  }

  /** @returns the module's number, or 0 where it is larger than the store */
  add(wasm: Uint8Array, members: readonly NewMember[]): number { return this.insert(blobOf(wasm, members)); }
  private insert(blob: Uint8Array): number {
    if (blob.length > this.halfBytes) return 0;
    const { i32, dv, u8 } = this.v;
    return withLock(i32, this.at + STORE.lock.at, () => {
      let current = i32[this.at + STORE.current.at >>> 2]! & 1;
      if (HALF.used.get(dv, this.halfAt(current)) + blob.length > this.halfBytes) this.empty(current = 1 - current);
      const half = this.halfAt(current), used = HALF.used.get(dv, half), address = this.bytesAt(current) + used;
      u8.set(blob, address);
      const nrMembers = MODULE.nrMembers.get(dv, address), nrKeys = nrMembers + MODULE.nrOthers.get(dv, address);
      HALF.used.set(dv, half, used + blob.length); HALF.nrModules.set(dv, half, HALF.nrModules.get(dv, half) + 1); HALF.nrMembers.set(dv, half, HALF.nrMembers.get(dv, half) + nrMembers);
      for (let n = 0, at = address + MODULE.sizeof; n < nrKeys; n++, at += KEY.sizeof + (n <= nrMembers ? up(KEY.size.get(dv, at)) : 0)) {
        const head = this.head(current, KEY.key.get(dv, at));
        KEY.module.set(dv, at, address); KEY.next.set(dv, at, i32[head]! >>> 0);
        Atomics.store(i32, head, at | 0);
      }
      STORE.added.set(dv, this.at, STORE.added.get(dv, this.at) + 1);
      return this.idOf(address);
    });
  }
  /** Under the lock: forget a half, and add to it from now on. */
  private empty(half: number): void {
    const { i32, dv } = this.v, at = this.halfAt(half);
    Atomics.add(i32, at + HALF.epoch.at >>> 2, 1);
    const heads = (this.at + HEADS_AT >>> 2) + half * NR_HEADS;
    i32.fill(0, heads, heads + NR_HEADS);
    HALF.used.set(dv, at, 0); HALF.nrModules.set(dv, at, 0); HALF.nrMembers.set(dv, at, 0);
    Atomics.store(i32, this.at + STORE.current.at >>> 2, half);
  }

  /** As bytes for a file; `engine` names what made them. */
  encode(engine: string): Uint8Array<ArrayBuffer> {
    const { i32, dv, u8 } = this.v, name = new TextEncoder().encode(engine), begin = up(FILE.sizeof + name.length);
    return withLock(i32, this.at + STORE.lock.at, () => {
      const current = i32[this.at + STORE.current.at >>> 2]! & 1, blobs = this.merged([1 - current, current]), out = new Uint8Array(blobs.reduce((n, b) => n + b.length, begin)), file = new DataView(out.buffer);
      FILE.magic.set(file, 0, MAGIC); FILE.version.set(file, 0, VERSION); FILE.engineBytes.set(file, 0, name.length); FILE.nrModules.set(file, 0, blobs.length);
      out.set(name, FILE.sizeof);
      let at = begin;
      for (const b of blobs) { out.set(b, at); at += b.length; }
      FILE.sum.set(file, 0, checksum(out));
      return out;
    });
  }
  /** Under the lock: the modules of these halves in the order in which they were made, those of one kind that follow each other in one. */
  private merged(halves: readonly number[]): Uint8Array[] {
    const { dv } = this.v, out: Uint8Array[] = [];
    let group: Read[] = [], bytes = 0;
    const flush = (): void => {
      const [first] = group, wasm = !first || group.length === 1 ? null : kindOf(first) === "data" ? first.wasm : mergeModules(group.map(m => m.wasm));
      if (wasm) out.push(blobOf(wasm, group.flatMap(m => m.members))); else out.push(...group.map(m => m.blob));
      group = []; bytes = 0;
    };
    for (const half of halves) for (let at = this.bytesAt(half), end = at + HALF.used.get(dv, this.halfAt(half)); at < end; at += MODULE.size.get(dv, at)) {
      const m = this.read(at), [last] = group;
      if (last && (bytes + m.wasm.length > MERGED_BYTES || kindOf(m) !== kindOf(last))) flush();
      group.push(m); bytes += m.wasm.length;
    }
    flush();
    return out;
  }
  private read(address: number): Read {
    const { dv, u8 } = this.v, members: { keys: number[]; bytes: Uint8Array }[] = [];
    let at = address + MODULE.sizeof;
    for (let n = MODULE.nrMembers.get(dv, address); n > 0; n--) {
      const size = KEY.size.get(dv, at);
      members.push({ keys: [KEY.key.get(dv, at)], bytes: u8.subarray(at + KEY.sizeof, at + KEY.sizeof + size) });
      at += KEY.sizeof + up(size);
    }
    for (let n = MODULE.nrOthers.get(dv, address); n > 0; n--, at += KEY.sizeof) members[KEY.index.get(dv, at)]!.keys.push(KEY.key.get(dv, at));
    return { blob: u8.subarray(address, address + MODULE.size.get(dv, address)), wasm: u8.subarray(at, at + MODULE.wasmBytes.get(dv, address)), members };
  }
  /** What is wrong with bytes that should be a store's, in words, or null. */
  static flaw(bytes: Uint8Array): string | null {
    if (bytes.length < FILE.sizeof) return "it is not a code cache";
    const dv = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    return FILE.magic.get(dv, 0) !== MAGIC ? "it is not a code cache" : bytes.length % ALIGN !== 0 || FILE.sum.get(dv, 0) !== checksum(bytes) ? "its checksum is wrong" : null;
  }
  /** Take in what `encode` made, unless another engine's name is on it. @param bytes without a flaw */
  load(bytes: Uint8Array, engine: string): void {
    const dv = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), engineBytes = FILE.engineBytes.get(dv, 0);
    if (FILE.version.get(dv, 0) !== VERSION || new TextDecoder().decode(bytes.subarray(FILE.sizeof, FILE.sizeof + engineBytes)) !== engine) return;
    let at = up(FILE.sizeof + engineBytes);
    for (let n = FILE.nrModules.get(dv, 0); n > 0; n--) {
      const size = MODULE.size.get(dv, at);
      this.insert(bytes.subarray(at, at + size));
      at += size;
    }
    STORE.added.set(this.v.dv, this.at, 0);
  }
}
/** A module as it is stored. */
function blobOf(wasm: Uint8Array, members: readonly NewMember[]): Uint8Array {
  const nrOthers = members.reduce((n, m) => n + m.keys.length - 1, 0), size = members.reduce((n, m) => n + KEY.sizeof + up(m.bytes.length), MODULE.sizeof + nrOthers * KEY.sizeof) + up(wasm.length), blob = new Uint8Array(size), dv = new DataView(blob.buffer), places: number[] = [];
  MODULE.size.set(dv, 0, size); MODULE.nrMembers.set(dv, 0, members.length); MODULE.wasmBytes.set(dv, 0, wasm.length); MODULE.nrOthers.set(dv, 0, nrOthers);
  let at = MODULE.sizeof;
  const write = (index: number, key: number, place: number): void => { KEY.key.set(dv, at, key); KEY.index.set(dv, at, index); KEY.at.set(dv, at, place); KEY.size.set(dv, at, members[index]!.bytes.length); };
  members.forEach(({ keys, bytes }, n) => {
    places.push(at + KEY.sizeof); write(n, keys[0]!, places[n]!);
    blob.set(bytes, places[n]);
    at += KEY.sizeof + up(bytes.length);
  });
  members.forEach(({ keys }, n) => { for (const key of keys.slice(1)) { write(n, key, places[n]!); at += KEY.sizeof; } });
  blob.set(wasm, at);
  return blob;
}
/** FNV-1a by words, all but the sum itself: against accidents. */
function checksum(bytes: Uint8Array): number {
  const words = bytes.byteOffset % 4 === 0 ? new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2) : new Uint32Array(bytes.slice().buffer);
  let h = 0x811c9dc5;
  for (let i = 0; i < words.length; i++) if (i !== FILE.sum.at >>> 2) h = Math.imul(h ^ words[i]!, 0x01000193);
  return h >>> 0;
}
