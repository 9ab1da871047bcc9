/**
 * Linear to machine addresses: the page walk and the software TLBs that generated code probes. SDM Vol. 3A ch. 4.
 *
 * A walk reads the guest's tables as they stand (another thread may be writing them), checks everything, and only then sets A and D, by
 * compare-and-swap; if an entry has changed meanwhile it starts again. PAE's PDPTEs are checked when CR3 is loaded and read at each
 * walk, as processors with nested paging do. The tables of the
 * last level and entries of large pages are remembered (a paging-structure cache, SDM Vol. 3A 4.10.3), until anything is invalidated. What sets no bit and is told to nobody is generated code's, with the same walk and the same
 * memory of it (refill.ts).
 *
 * A TLB entry's write tag is set only where a store may go ahead with nothing else to do: writable, D already set, no decoded code in the frame, not to be reported (P2M_CLEAN).
 */
import { lock, unlock } from "../memory/lock.ts";
import { canonical, type Cpu } from "./cpu.ts";
import { GuestFault, NO_VECTOR } from "./fault.ts";
import { CONTEXT, TLBE, WALKE } from "./layout.ts";
import { P2M_AWAITED, P2M_CLEAN, P2M_CODE, P2M_WRITE } from "./platform.ts";
import { CPU, CR0, CR4, EFER, PFERR, VECTOR } from "./state.ts";
import { HUGE, LARGE, Tlb } from "./tlb.ts";

const READ = 0, WRITE = 1, EXECUTE = 2;
const OK = -1, AGAIN = -2;
/** What is done about a frame that has not come yet: the instruction is left and made again; it is waited for, in the middle of what cannot be; the look was for nothing. */
const LEAVE = 0, WAIT = 1, GIVE_UP = 2;
/** Page table entry bits, SDM Vol. 3A table 4-15 ff. */
export const PTE = { P: 1, RW: 2, US: 4, A: 0x20, D: 0x40, PS: 0x80, G: 0x100 } as const;
export class Mmu {
  private readonly cpu: Cpu;
  private readonly i32: Int32Array;
  private readonly dv: DataView;
  readonly tlb: Tlb;
  private physBits = 0;
  /** For counters: page walks. */
  walks = 0;

  /** Data breakpoints (DR7): pages with one are never entered in the TLB, so that every access comes here. */
  private watch: { readonly n: number; readonly from: number; readonly to: number; readonly isWriteOnly: boolean }[] = [];
  /** Bits of DR6 for the data breakpoints met by the present instruction; taken by the run loop. */
  watchHits = 0;

  // What the last successful walk found.
  private gfn = 0;
  private writable = false;
  private dirty = false;
  private flags = 0;
  // What enter() found: the frame's machine address (0: none) and rights.
  private machine = 0;
  private rights = 0;
  // Entries on the way, by level.
  private readonly entryAt = new Float64Array(5);
  private readonly entryLo = new Int32Array(5);
  private readonly entryRights = new Int32Array(5);

  constructor(cpu: Cpu) {
    this.cpu = cpu; this.i32 = cpu.v.i32; this.dv = cpu.v.dv;
    this.tlb = new Tlb(cpu);
  }

  /** MAXPHYADDR, from CPUID 0x80000008. */
  get maxPhysAddr(): number {
    if (this.physBits) return this.physBits;
    const out = new Uint32Array(4);
    this.cpu.platform.cpuid(0x80000008, 0, out);
    return this.physBits = Math.min(52, Math.max(36, out[0]! & 0xff));
  }

  // Frames ---------------------------------------------------------------------
  private ifAwaited: typeof LEAVE | typeof WAIT | typeof GIVE_UP = LEAVE;
  private whileAwaiting<T>(how: typeof WAIT | typeof GIVE_UP, f: () => T): T {
    const before = this.ifAwaited;
    this.ifAwaited = how;
    try { return f(); } finally { this.ifAwaited = before; }
  }
  /** Do what cannot be made again from its beginning: frames that have not come yet are waited for. */
  waiting<T>(f: () => T): T { return this.whileAwaiting(this.ifAwaited === GIVE_UP ? GIVE_UP : WAIT, f); }
  /** Do what need not be done: where a frame has not come yet there is nothing. */
  ifHere<T>(f: () => T): T { return this.whileAwaiting(GIVE_UP, f); }
  /** A guest's frame as Platform.frameOf has it, its bytes there. @throws GuestFault (NO_VECTOR.awaited) */
  frame(gfn: number): number {
    const { platform } = this.cpu;
    for (;;) {
      const packed = platform.frameOf(gfn);
      if (!(packed & P2M_AWAITED)) return packed;
      if (this.ifAwaited === LEAVE) throw new GuestFault(NO_VECTOR.awaited, gfn);
      if (this.ifAwaited === GIVE_UP || !platform.awaitFrame?.(gfn)) return 0;
    }
  }

  // Walk -----------------------------------------------------------------------
  /**
   * Translate a canonical address for one access; on success A (and D) are set and the fields above filled.
   * @returns OK, or the #PF error code
   */
  private walk(linear: number, access: number, context: number): number {
    this.walks++;
    for (;;) {
      const r = this.cpu.cr0 & CR0.PG ? this.cpu.cr4 & CR4.PAE ? this.walk64(linear, access, context) : this.walk32(linear, access, context) : this.identity(linear);
      if (r !== AGAIN) return r;
    }
  }
  private identity(linear: number): number {
    this.gfn = linear >>> 12; this.writable = this.dirty = true; this.flags = 0;
    return OK;
  }
  private errorCode(access: number, context: number, cause: number): number {
    const fetch = access === EXECUTE && (this.cpu.cr4 & CR4.SMEP || this.cpu.cr4 & CR4.PAE && this.cpu.efer & EFER.NXE);
    return cause | (access === WRITE ? PFERR.W : 0) | (context === CONTEXT.user ? PFERR.U : 0) | (fetch ? PFERR.I : 0);
  }
  /** SDM Vol. 3A 4.6: may this access be made? us and rw: all levels agree; nx: some level forbids fetches. */
  private permitted(access: number, context: number, us: boolean, rw: boolean, nx: boolean): boolean {
    if (access === EXECUTE && nx) return false;
    if (context === CONTEXT.user) { this.writable = rw; return us && (access !== WRITE || rw); }
    this.writable = rw || !(this.cpu.cr0 & CR0.WP);
    if (us) {
      if (access === EXECUTE) return !(this.cpu.cr4 & CR4.SMEP);
      if (context === CONTEXT.kernel && this.cpu.cr4 & CR4.SMAP) return false;
    }
    return access !== WRITE || this.writable;
  }
  /** Remember where a level's entry lies; leaves its low half in entryLo. @returns its machine address, 0 for a hole */
  private locate(level: number, gfn: number, offset: number): number {
    const packed = this.frame(gfn), rights = packed & 0xfff;
    this.entryRights[level] = rights;
    return this.entryAt[level] = packed === 0 ? 0 : ((packed - rights) >>> 0) + offset;
  }
  /** 4-level and PAE tables: entries of eight bytes. */
  private walk64(linear: number, access: number, context: number): number {
    const { cpu, i32 } = this, long = cpu.isLong, nxe = (cpu.efer & EFER.NXE) !== 0, l = linear | 0, lHi = Math.floor(linear / 4294967296) | 0;
    const reservedHi = this.reservedHi | (nxe ? 0 : 1 << 31) | (long ? 0 : 0x7ff00000);
    const top = long ? 4 : 3, cr3 = cpu.cr3;
    let gfn = long ? Math.floor(cr3 / 4096) % 2 ** 40 : cr3 % 4294967296 >>> 12, us = true, rw = true, nx = false, level = top, lo = 0, hi = 0;
    const { walks } = this.tlb, region = Math.floor(linear / 2 ** 21), slot = walks.slotOf(region);
    const entry = (l >>> 12 & 511) * 8;
    let known = 0, above = 0;
    if (long && walks.has(slot, region)) {
      const bits = i32[slot + (WALKE.bits >> 2)]!;
      known = level = bits >>> 3 & 3; us = (bits & PTE.US) !== 0; rw = (bits & PTE.RW) !== 0; nx = (bits & 1) !== 0;
      this.entryAt[level] = (i32[slot + (WALKE.at >> 2)]! >>> 0) + (level === 1 ? entry : 0); this.entryRights[level] = bits >>> 8;
    }
    for (;; level--) {
      above = (us ? PTE.US : 0) | (rw ? PTE.RW : 0) | (nx ? 1 : 0);
      const index = level === 1 ? l >>> 12 & 511 : level === 2 ? l >>> 21 & 511 : level === 4 ? lHi >>> 7 & 511 : long ? (l >>> 30 | lHi << 2) & 511 : l >>> 30;
      const at = level === known ? this.entryAt[level]! : this.locate(level, gfn, index * 8 + (long || level < 3 ? 0 : cr3 & 0xfe0));
      if (at === 0) lo = hi = -1;
      else do { lo = i32[at >>> 2]!; hi = i32[(at >>> 2) + 1]!; } while (lo !== Atomics.load(i32, at >>> 2));       // halves of one entry: nobody wrote between
      this.entryLo[level] = lo;
      if (!(lo & PTE.P)) return this.errorCode(access, context, 0);
      const pdpte = !long && level === 3, ps = level > 1 && level < 4 && !pdpte && lo & PTE.PS;
      const reservedLo = level === 4 ? PTE.PS : pdpte ? 0x1e6 : ps ? level === 3 ? 0x3fffe000 : 0x1fe000 : 0;
      if (hi & (pdpte ? reservedHi | 1 << 31 : reservedHi) || lo & reservedLo) return this.errorCode(access, context, PFERR.P | PFERR.RSVD);
      if (!pdpte) { us &&= (lo & PTE.US) !== 0; rw &&= (lo & PTE.RW) !== 0; nx ||= nxe && hi < 0; }
      if (ps || level === 1) break;
      gfn = (hi & 0xfffff) * 1048576 + (lo >>> 12);
    }
    if (!this.permitted(access, context, us, rw, nx)) return this.errorCode(access, context, PFERR.P);
    const inPage = level === 1 ? 0 : level === 2 ? 0x1ff : 0x3ffff;
    this.gfn = (hi & 0xfffff) * 1048576 + (lo >>> 12 & ~inPage | l >>> 12 & inPage);
    const marked = this.mark(level, known || (long ? 4 : 2), access, level === 1 ? 0 : level === 2 ? LARGE : HUGE);
    if (marked === OK && long && level !== known && this.entryAt[level] !== 0) {
      walks.set(slot, region, this.entryAt[level]! - (level === 1 ? entry : 0), above | level << 3 | this.entryRights[level]! << 8);
    }
    return marked;
  }
  /** Two levels of entries of four bytes, with PSE and PSE-36. */
  private walk32(linear: number, access: number, context: number): number {
    const { cpu, i32 } = this, l = linear | 0;
    let gfn = cpu.cr3 % 4294967296 >>> 12, us = true, rw = true, level = 2, lo = 0;
    for (;; level--) {
      const at = this.locate(level, gfn, (level === 2 ? l >>> 22 : l >>> 12 & 1023) * 4);
      lo = this.entryLo[level] = at === 0 ? -1 : Atomics.load(i32, at >>> 2);
      if (!(lo & PTE.P)) return this.errorCode(access, context, 0);
      const ps = level === 2 && lo & PTE.PS && cpu.cr4 & CR4.PSE;
      if (ps && (lo & 1 << 21 || (lo >>> 13 & 0xff) >>> Math.min(8, this.maxPhysAddr - 32))) return this.errorCode(access, context, PFERR.P | PFERR.RSVD);
      us &&= (lo & PTE.US) !== 0; rw &&= (lo & PTE.RW) !== 0;
      if (ps || level === 1) break;
      gfn = lo >>> 12;
    }
    if (!this.permitted(access, context, us, rw, false)) return this.errorCode(access, context, PFERR.P);
    this.gfn = level === 1 ? lo >>> 12 : (lo >>> 13 & 0xff) * 1048576 + (lo >>> 22 << 10 | l >>> 12 & 1023);
    return this.mark(level, 2, access, level === 1 ? 0 : LARGE);
  }
  /** Set A on the way from `top` to the leaf, D on the leaf of a write. */
  private mark(leaf: number, top: number, access: number, large: number): number {
    for (let level = top; level >= leaf; level--) {
      const at = this.entryAt[level]!, lo = this.entryLo[level]!, rights = this.entryRights[level]!, want = lo | PTE.A | (access === WRITE && level === leaf ? PTE.D : 0);
      if (want === lo || at === 0) continue;
      if (rights & P2M_CODE) this.cpu.onCodeWrite(at, 4);
      if (rights & P2M_CLEAN) this.cpu.platform.dirtied(at >>> 12);
      if (rights & P2M_WRITE && Atomics.compareExchange(this.i32, at >>> 2, lo, want) !== lo) return AGAIN;
      if (level === leaf) this.entryLo[level] = want;
    }
    const lo = this.entryLo[leaf]!;
    this.dirty = (lo & PTE.D) !== 0;
    this.flags = large | (lo & PTE.G && this.cpu.cr4 & CR4.PGE ? TLBE.global : 0);
    return OK;
  }
  /** #PF: CR2 takes the address. */
  private pageFault(linear: number, errorCode: number): never {
    this.setCr2(linear);
    throw new GuestFault(VECTOR.PF, errorCode);
  }
  private setCr2(linear: number): void {
    const at = (this.cpu.at + CPU.cr2.at) >>> 2;
    this.i32[at] = linear | 0; this.i32[at + 1] = Math.floor(linear / 4294967296) | 0;
  }

  // Data TLB -------------------------------------------------------------------
  /** After a walk: fill the entry. @returns the byte's machine address, or -1 when the access must be made by hand (machine and rights say how) */
  private enter(linear: number, write: number, context: number): number {
    const packed = this.frame(this.gfn), rights = this.rights = packed & 0xfff, machine = this.machine = (packed - rights) >>> 0;
    if (packed === 0) return -1;
    const { flags } = this;
    if (this.watch.length !== 0 && this.watch.some(b => b.from <= linear - (linear & 0xfff) + 4095 && b.to > linear - (linear & 0xfff))) {
      this.rights |= P2M_CODE;                         // it may be code in a moment, and no entry says that it was written
      return -1;
    }
    const isClean = (rights & P2M_CLEAN) !== 0;
    if (isClean && write) this.cpu.platform.dirtied(machine >>> 12);
    const canWrite = this.writable && this.dirty && (!isClean || write !== 0) && (rights & (P2M_WRITE | P2M_CODE)) === P2M_WRITE;
    this.tlb.enter(context, linear, machine, flags, canWrite);
    return write && !canWrite ? -1 : machine + (linear & 0xfff);
  }
  /** Machine address of a byte, through the TLB; -1: by hand. @throws GuestFault */
  private host(linear: number, write: number, context: number): number {
    const e = this.tlb.entryOf(context, linear), t = e + write * 2;
    if (this.i32[t] === (linear & ~0xfff) && this.i32[t + 1] === (Math.floor(linear / 4294967296) | 0)) return ((linear | 0) + this.i32[e + (TLBE.add >> 2)]!) >>> 0;
    const code = this.walk(linear, write, context);
    if (code >= 0) this.pageFault(linear, code);
    return this.enter(linear, write, context);
  }
  /** Machine address for operations within a page (strings.ts, stack.ts); -1: not plain memory. @throws GuestFault */
  plain(linear: number, write: boolean, context = this.cpu.context): number { return this.host(linear, write ? 1 : 0, context); }

  /**
   * Called by generated code on a TLB miss, with the linear page's number (lo: bits 12-43, hi: bits 44-63), and access 0 or 1 with the offset in the page above it.
   * @returns 0: the tag is there; 1: a page fault or an awaited frame, recorded; 2: do the access by slowLoad or slowStore, which also find other faults
   */
  fill(lo: number, hi: number, how: number): number {
    const top = (hi & 0xfffff) >>> 3;
    if (top !== 0 && top !== 0x1ffff) return 2;
    const linear = ((hi << 12 >> 12) * 4294967296 + (lo >>> 0)) * 4096, { context } = this.cpu;
    try {
      const code = this.walk(linear, how & 1, context);
      if (code === OK) return this.enter(linear, how & 1, context) >= 0 ? 0 : 2;
      this.setCr2(linear + (how >>> 1));
      this.cpu.recordFault(VECTOR.PF, code);
    } catch (f) {
      if (!(f instanceof GuestFault)) throw f;
      this.cpu.record(f);
    }
    return 1;
  }

  /** DR0-3 or DR7 may have changed. SDM Vol. 3B 17.2.4: DR7 enables in bits 0-7, type and length from bit 16. */
  setWatch(): void {
    const dr7 = Number(this.cpu.dr(7) & 0xffffffffn), now: typeof this.watch = [];
    for (let n = 0; n < 4; n++) {
      const type = dr7 >>> 16 + 4 * n & 3, size = [1, 2, 8, 4][dr7 >>> 18 + 4 * n & 3]!, at = canonical(this.cpu.dr(n));
      if (dr7 >>> 2 * n & 3 && type & 1 && at !== null) now.push({ n, from: at - (at & size - 1), to: at - (at & size - 1) + size, isWriteOnly: type === 1 });
    }
    if (now.length || this.watch.length) this.tlb.flushAll();
    this.watch = now;
    this.setWalk();
  }
  /** Say where refills in generated code (refill.ts) find frames: nowhere while pages are watched. */
  private setWalk(): void {
    const { cpu, i32 } = this, w = cpu.at >>> 2, walk = this.watch.length === 0 ? cpu.platform.walk?.() : undefined, [first, second] = walk?.busy ?? [0, 0];
    i32[w + (CPU.p2mRoot.at >> 2)] = walk?.p2mRoot ?? 0; i32[w + (CPU.frameTable.at >> 2)] = walk?.frameTable ?? 0;
    i32[w + (CPU.p2mBusy.at >> 2)] = first; i32[w + (CPU.p2mBusy.at >> 2) + 1] = second;
    i32[w + (CPU.isShared.at >> 2)] = walk?.isShared ? 1 : 0; i32[w + (CPU.reservedHi.at >> 2)] = this.reservedHi;
    this.tlb.walks.show();
  }
  /** Bits of an entry's upper half that no physical address has, NX apart. */
  private get reservedHi(): number { const bits = this.maxPhysAddr - 32; return bits < 20 ? 0xfffff & ~((1 << bits) - 1) : 0; }
  private noteWatched(linear: number, size: number, isWrite: boolean): void {
    for (const b of this.watch) if (linear < b.to && linear + size > b.from && (isWrite || !b.isWriteOnly)) this.watchHits |= 1 << b.n;
  }

  // Access by hand -------------------------------------------------------------
  /** After host() === -1. */
  private handLoad(linear: number, size: number): bigint {
    if (this.machine) {
      this.noteWatched(linear, size, false);
      const at = this.machine + (linear & 0xfff);
      return size === 8 ? this.dv.getBigUint64(at, true) : BigInt(size === 4 ? this.dv.getUint32(at, true) : size === 2 ? this.dv.getUint16(at, true) : this.dv.getUint8(at));
    }
    return this.cpu.platform.mmioRead(this.gfn * 4096 + (linear & 0xfff), size);
  }
  private handStore(linear: number, value: bigint, size: number): void {
    const offset = linear & 0xfff;
    if (!(this.machine && this.rights & P2M_WRITE)) { this.cpu.platform.mmioWrite(this.gfn * 4096 + offset, size, value); return; }
    this.noteWatched(linear, size, true);
    if (this.rights & P2M_CODE) this.cpu.onCodeWrite(this.machine + offset, size);
    this.put(this.machine + offset, value, size);
  }
  private put(at: number, value: bigint, size: number): void {
    if (size === 8) this.dv.setBigUint64(at, value, true);
    else this.putNumber(at, Number(BigInt.asUintN(32, value)), size);
  }
  private putNumber(at: number, value: number, size: number): void {
    if (size === 4) this.dv.setUint32(at, value, true);
    else if (size === 2) this.dv.setUint16(at, value, true);
    else this.dv.setUint8(at, value);
  }
  /** First byte of the page after `linear`'s, for an access that crosses. @throws GuestFault at the end of the canonical half */
  private nextPage(linear: number): number {
    const n = linear - (linear & 0xfff) + 4096;
    if (n === 2 ** 47) throw new GuestFault(VECTOR.GP, 0);
    return n === 4294967296 && !this.cpu.is64 ? 0 : n;
  }
  /** Index in `i32` of the word at a linear address where it and what follows, `bytes` in all, can be read as plain memory; -1: by `load`. @throws GuestFault */
  words(a: number, bytes: number, context: number): number {
    if ((a & 3) !== 0 || (a & 0xfff) + bytes > 4096) return -1;
    const h = this.host(a, 0, context);
    return h < 0 ? -1 : h >>> 2;
  }
  /** Eight bytes as a signed number: exact below 2^53, which is enough for addresses. @throws GuestFault */
  loadNumber(a: number, context: number): number {
    const w = this.words(a, 8, context);
    if (w >= 0) return this.i32[w + 1]! * 4294967296 + (this.i32[w]! >>> 0);
    const lo = this.load(a, 4, context);
    return (this.load(a + 4, 4, context) | 0) * 4294967296 + lo;
  }
  load(a: number, size: number, context: number): number {
    if ((a & 0xfff) + size > 4096) return Number(this.loadCrossing(a, size, context));
    const h = this.host(a, 0, context);
    if (h < 0) return Number(this.handLoad(a, size));
    return size === 4 ? this.dv.getUint32(h, true) : size === 2 ? this.dv.getUint16(h, true) : this.dv.getUint8(h);
  }
  load64(a: number, context: number): bigint {
    if ((a & 0xfff) > 4088) return this.loadCrossing(a, 8, context);
    const h = this.host(a, 0, context);
    return h < 0 ? BigInt.asUintN(64, this.handLoad(a, 8)) : this.dv.getBigUint64(h, true);
  }
  private loadCrossing(a: number, size: number, context: number): bigint {
    const first = 4096 - (a & 0xfff), second = this.nextPage(a);
    this.host(a, 0, context); this.host(second, 0, context);
    let v = 0n;
    for (let i = size - 1; i >= 0; i--) v = v << 8n | BigInt(this.load(i < first ? a + i : second + i - first, 1, context));
    return v;
  }
  store(a: number, value: number, size: number, context: number): void {
    if ((a & 0xfff) + size > 4096) return this.storeCrossing(a, BigInt(value), size, context);
    const h = this.host(a, 1, context);
    if (h < 0) this.handStore(a, BigInt(value >>> 0), size);
    else this.putNumber(h, value, size);
  }
  store64(a: number, value: bigint, context: number): void {
    if ((a & 0xfff) > 4088) return this.storeCrossing(a, value, 8, context);
    const h = this.host(a, 1, context);
    if (h < 0) this.handStore(a, BigInt.asUintN(64, value), 8);
    else this.dv.setBigUint64(h, value, true);
  }
  /** Both pages are checked before a byte is written. */
  private storeCrossing(a: number, value: bigint, size: number, context: number): void {
    const first = 4096 - (a & 0xfff), second = this.nextPage(a);
    const check = (at: number): number => (this.host(at, 1, context) < 0 && this.machine && this.rights & P2M_CODE ? this.machine + (at & 0xfff) : 0);
    const codeA = check(a), codeB = check(second);
    // decoded code goes before the first byte too: whoever must make the store again finds memory as it was
    if (codeA) this.cpu.onCodeWrite(codeA, first);
    if (codeB) this.cpu.onCodeWrite(codeB, size - first);
    for (let i = 0; i < size; i++) this.store(i < first ? a + i : second + i - first, Number(value >> BigInt(8 * i) & 0xffn), 1, context);
  }
  /** Check that `size` bytes (at most a page) may be written at the given privilege, without writing. @throws GuestFault */
  checkWrite(a: number, size: number, context: number): void {
    this.host(a, 1, context);
    if ((a & 0xfff) + size > 4096) this.host(this.nextPage(a), 1, context);
  }
  checkRead(a: number, size: number, context: number): void {
    this.host(a, 0, context);
    if ((a & 0xfff) + size > 4096) this.host(this.nextPage(a), 0, context);
  }

  /** The parts of a range, a page at a time: [linear address, offset in the range, length]. */
  private parts(a: number, length: number): [number, number, number][] {
    const out: [number, number, number][] = [];
    for (let done = 0, at = a; done < length; at = this.nextPage(at)) {
      const n = Math.min(length - done, 4096 - (at & 0xfff));
      out.push([at, done, n]);
      if ((done += n) === length) break;
    }
    return out;
  }
  /** Read bytes at the present privilege. @throws GuestFault */
  readBytes(a: number, out: Uint8Array): void {
    const { context } = this.cpu;
    for (const [at, from, n] of this.parts(a, out.length)) {
      const h = this.host(at, 0, context);
      if (h >= 0) out.set(this.cpu.v.u8.subarray(h, h + n), from);
      else for (let i = 0; i < n; i++) out[from + i] = this.load(at + i, 1, context);
    }
  }
  /** Write bytes at the present privilege; every page is checked first. @throws GuestFault */
  writeBytes(a: number, bytes: Uint8Array): void {
    const { context } = this.cpu, parts = this.parts(a, bytes.length);
    for (const [at] of parts) this.host(at, 1, context);
    for (const [at, from, n] of parts) {
      const h = this.host(at, 1, context);
      if (h >= 0) this.cpu.v.u8.set(bytes.subarray(from, from + n), h);
      else for (let i = 0; i < n; i++) this.store(at + i, bytes[from + i]!, 1, context);
    }
  }

  /** A load generated code could not make in line. `stack`: a non-canonical address is #SS. A fault is recorded in the CPU struct and the result is 0. */
  slowLoad(linear: bigint, size: number, stack = 0): bigint {
    try {
      const a = this.cpu.linear(linear, stack !== 0);
      return size === 8 ? this.load64(a, this.cpu.context) : BigInt(this.load(a, size, this.cpu.context));
    } catch (f) {
      if (!(f instanceof GuestFault)) throw f;
      this.cpu.record(f);
      return 0n;
    }
  }
  /** A store of generated code is being made: where it hits decoded code it may still be undone and made again. */
  isDirect = false;
  /** A store generated code could not make in line; as slowLoad. */
  slowStore(linear: bigint, value: bigint, size: number, stack = 0): void {
    this.isDirect = true;
    try {
      const a = this.cpu.linear(linear, stack !== 0);
      if (size === 8) this.store64(a, value, this.cpu.context);
      else this.store(a, Number(BigInt.asUintN(8 * size, value)), size, this.cpu.context);
    } catch (f) {
      if (!(f instanceof GuestFault)) throw f;
      this.cpu.record(f);
    } finally { this.isDirect = false; }
  }

  /** A store that is made only where memory still holds `old`, in one step where the bytes are aligned and in memory. @returns whether it was made, or a fault recorded */
  slowCas(linear: bigint, old: bigint, value: bigint, size: number): boolean {
    this.isDirect = true;
    try {
      const { v, context } = this.cpu, a = this.cpu.linear(linear, false);
      if (a % size === 0) {
        let at = this.host(a, 1, context);
        if (at < 0 && this.machine && this.rights & P2M_WRITE) {
          at = this.machine + (a & 0xfff);
          this.noteWatched(a, size, true);
          if (this.rights & P2M_CODE) this.cpu.onCodeWrite(at, size);
        }
        if (at >= 0) {
          if (size === 8) return Atomics.compareExchange(v.i64, at / 8, BigInt.asIntN(64, old), BigInt.asIntN(64, value)) === BigInt.asIntN(64, old);
          const array = size === 4 ? v.u32 : size === 2 ? v.u16 : v.u8;
          return Atomics.compareExchange(array, at / size, Number(old), Number(value)) === Number(old);
        }
      } else {
        const words = this.wordsOf(a, size);
        if (words) return this.casWords(words, size, BigInt.asUintN(8 * size, old), BigInt.asUintN(8 * size, value));
      }
    } catch (f) {
      if (!(f instanceof GuestFault)) throw f;
      this.cpu.record(f);
      return true;
    } finally { this.isDirect = false; }
    this.slowStore(linear, value, size);
    return true;
  }
  /** The words of eight bytes that hold `size` bytes from a linear address, all in plain memory that may be written; null where some are not. Decoded code in them is forgotten. @throws GuestFault */
  private wordsOf(a: number, size: number): { at: number; lowBits: bigint }[] | null {
    const words: { at: number; lowBits: bigint }[] = [], { context } = this.cpu;
    for (let from = a - (a & 7); from < a + size; from += 8) {
      const linear = (from & 0xfff) === 0 && from > a ? this.nextPage(a) : from;
      let at = this.host(linear, 1, context);
      if (at < 0) {
        if (!(this.machine && this.rights & P2M_WRITE)) return null;
        at = this.machine + (linear & 0xfff);
        this.noteWatched(linear, 8, true);
        if (this.rights & P2M_CODE) this.cpu.onCodeWrite(at, 8);
      }
      words.push({ at: at / 8, lowBits: BigInt(8 * (a - from)) });
    }
    return words;
  }
  /**
   * A locked access that no single atomic operation makes: bytes that lie across the 8-byte words. Those who come this way hold the machine's lock word in turn; others may write to one
   * of the words meanwhile by operations of their own, which are then not undone, and the access starts over.
   */
  private casWords(words: readonly { at: number; lowBits: bigint }[], size: number, old: bigint, value: bigint): boolean {
    const { u64, i32 } = this.cpu.v, lockAt = words.length > 1 ? this.cpu.platform.busLock ?? 0 : 0, mask = (1n << BigInt(8 * size)) - 1n;
    const part = (x: bigint, lowBits: bigint): bigint => BigInt.asUintN(64, lowBits >= 0n ? x << lowBits : x >> -lowBits);
    const put = ({ at, lowBits }: { at: number; lowBits: bigint }, from: bigint, to: bigint): boolean => {
      for (const bits = part(mask, lowBits);;) {
        const now = Atomics.load(u64, at);
        if ((now & bits) !== part(from, lowBits)) return false;
        if (Atomics.compareExchange(u64, at, now, (now & ~bits) | part(to, lowBits)) === now) return true;
      }
    };
    if (lockAt) lock(i32, lockAt);
    try {
      if (!put(words[0]!, old, value)) return false;
      if (words.length === 1 || put(words[1]!, old, value)) return true;
      put(words[0]!, value, old);
      return false;
    } finally { if (lockAt) unlock(i32, lockAt); }
  }
  /** LOCK CMPXCHG16B at an aligned address. @returns what was there, low half first @throws GuestFault */
  cas16(a: number, want: readonly [bigint, bigint], next: readonly [bigint, bigint]): [bigint, bigint] {
    const words = this.wordsOf(a, 16), { u64, i32 } = this.cpu.v, { context } = this.cpu, wide = (x: readonly [bigint, bigint]): bigint => x[1] << 64n | x[0];
    if (words === null) {       // no memory: nobody shares it
      const found: [bigint, bigint] = [this.load64(a, context), this.load64(a + 8, context)], now = wide(found) === wide(want) ? next : found;
      this.store64(a, now[0], context); this.store64(a + 8, now[1], context);
      return found;
    }
    const lockAt = this.cpu.platform.busLock ?? 0;
    for (;;) {
      if (this.casWords(words, 16, wide(want), wide(next))) return [want[0], want[1]];
      if (lockAt) lock(i32, lockAt);
      const found: [bigint, bigint] = [Atomics.load(u64, words[0]!.at), Atomics.load(u64, words[1]!.at)];
      if (lockAt) unlock(i32, lockAt);
      if (wide(found) !== wide(want)) return found;
    }
  }

  // Access that may fail -------------------------------------------------------
  /** host() without an exception and without CR2; 0 where there is no plain memory. */
  private tryHost(a: number, write: number, context: number): number {
    return this.waiting(() => {
      if (this.walk(a, write, context) !== OK) return 0;
      const h = this.enter(a, write, context);
      if (h >= 0) return h;
      return this.machine && (!write || this.rights & P2M_WRITE) ? this.machine + (a & 0xfff) : 0;
    });
  }
  /** Call `each` for the pieces of a range, page by page; false as soon as one is not there. */
  private pieces(start: number | bigint, length: number, write: number, context: number, each: (host: number, done: number, n: number) => void): boolean {
    const from = typeof start === "bigint" ? canonical(start) : start;
    if (from === null) return false;
    for (let done = 0; done < length;) {
      const a = from + done, n = Math.min(length - done, 4096 - (a & 0xfff));
      if (a >= 2 ** 47 || a < -(2 ** 47)) return false;
      const h = this.tryHost(a, write, context);
      if (h === 0) return false;
      each(h, done, n);
      done += n;
    }
    return true;
  }
  copyOut(a: number | bigint, out: Uint8Array, context: number): boolean {
    const { u8 } = this.cpu.v;
    return this.pieces(a, out.length, READ, context, (h, done, n) => out.set(u8.subarray(h, h + n), done));
  }
  copyIn(a: number | bigint, bytes: Uint8Array, context: number): boolean {
    const { u8 } = this.cpu.v;
    return this.pieces(a, bytes.length, WRITE, context, () => {}) && this.pieces(a, bytes.length, WRITE, context, (h, done, n) => {
      if (this.rights & P2M_CODE) this.cpu.onCodeWrite(h, n);
      u8.set(bytes.subarray(done, done + n), h);
    });
  }
  /** Guest-physical address as the guest's kernel would read it, or null. */
  translate(a: number | bigint): number | null {
    const n = typeof a === "bigint" ? canonical(a) : a;
    return n === null || this.waiting(() => this.walk(n, READ, CONTEXT.kernelAc)) !== OK ? null : this.gfn * 4096 + (n & 0xfff);
  }

  /** Machine address of the page that an instruction fetch at the present privilege would find, or 0; nothing is raised or entered. */
  peekCode(linear: number): number {
    if (linear >= 2 ** 47 || linear < -(2 ** 47)) return 0;
    const packed = this.ifHere(() => (this.walk(linear, EXECUTE, this.cpu.context) === OK ? this.frame(this.gfn) : 0));
    return packed === 0 ? 0 : (packed - (packed & 0xfff)) >>> 0;
  }

  // Instruction TLB ------------------------------------------------------------
  /** Translate for execution at the present privilege and fill the instruction TLB's entry (tag: page | CPU.mode; key: machine page + (CPU.mode without the user bit) << 32; an empty tag is -1). @returns the page's machine address. @throws GuestFault */
  fillCode(linear: number): number {
    if (linear >= 2 ** 47 || linear < -(2 ** 47)) throw new GuestFault(VECTOR.GP, 0);
    const { cpu, tlb } = this, known = tlb.codeAt(linear, cpu.mode);
    if (known >= 0) return known;
    const code = this.walk(linear, EXECUTE, cpu.context);
    if (code >= 0) this.pageFault(linear, code);
    const packed = this.frame(this.gfn);
    if (packed === 0) throw new GuestFault(VECTOR.UD);    // a hole reads all ones, which is no instruction
    const machine = (packed - (packed & 0xfff)) >>> 0;
    tlb.enterCode(linear, cpu.mode, machine, this.flags);
    return machine;
  }
}
