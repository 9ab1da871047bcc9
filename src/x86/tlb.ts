/**
 * The software TLBs that generated code probes, in the pCPU's area (layout.ts), and where jumps went: what is entered, and what makes it go again (SDM Vol. 3A 4.10.4).
 *
 * Each vCPU that ran here lately has tables of its own, a bank, so that it finds them when it comes back, as on processors that tag their entries.
 */
import type { Cpu } from "./cpu.ts";
import type { Views } from "../base/views.ts";
import { BANK_BYTES, FRAMES_MAX, ITLB_BITS, ITLB_IN_BANK, ITLBE, itlbIndex, JUMP_BITS, JUMP_TAG, JUMPE, JUMPS_AT, LARGE_BITS, LARGE_BYTES, LARGE_IN_BANK, LOG, LOGS_IN_BANK, noTag, NR_BANKS, TLB_AT, TLB_BITS, TLB_BYTES, TLB_CONTEXTS, TLBE, WALK_BITS, WALKE, WALKS_AT, WRITERS_AT } from "./layout.ts";
import { CPU, MODE } from "./state.ts";

const TLB_MASK = (1 << TLB_BITS) - 1;
/** TLBE.flags beside TLBE.global: the entry is part of a 2 or 4 MiB page, or of a 1 GiB page. */
export const LARGE = 2, HUGE = 4;

/** A bit for the 4 MiB or 1 GiB region of an address, of as many as LARGE_BYTES holds; the same in wasm: refill.ts. */
export const LARGE_HASH = 0x9e3779b1;
const bitOf = (linear: number, flags: number): number => Math.imul(flags & HUGE ? Math.floor(linear / 2 ** 30) * 2 + 1 : Math.floor(linear / 2 ** 22) * 2, LARGE_HASH) >>> 32 - LARGE_BITS;
/** Which entries of a table have been filled since it was emptied (LOG), so that a flush costs what was filled. */
class FillLog {
  private readonly v: Views;
  private readonly at: number;
  constructor(v: Views, at: number) { this.v = v; this.at = at; }
  get nr(): number { return this.v.i32[this.at >>> 2]!; }
  entry(n: number): number { return this.v.u16[(this.at + LOG.entries >>> 1) + n]!; }
  add(i: number): void {
    const { u8, u16, i32 } = this.v, { at } = this;
    if (u8[at + LOG.logged + i] !== 0) return;
    u8[at + LOG.logged + i] = 1;
    u16[(at + LOG.entries >>> 1) + i32[at >>> 2]!++] = i;
  }
  clear(): void {
    const { u8, i32 } = this.v;
    for (let n = 0; n < this.nr; n++) u8[this.at + LOG.logged + this.entry(n)] = 0;
    i32[this.at >>> 2] = 0;
  }
}
/** Where walks end that were made lately (WALKE). */
class Walks {
  private readonly i32: Int32Array;
  private readonly at: number;
  private readonly epochWord: number;
  private epoch = 1;
  constructor({ at, v }: Cpu) { this.i32 = v.i32; this.at = at + WALKS_AT >>> 2; this.epochWord = at + CPU.walkEpoch.at >>> 2; this.clear(); }
  /** Index in `i32` of the entry that a region has. */
  slotOf(region: number): number { return this.at + (region & (1 << WALK_BITS) - 1) * (WALKE.size >> 2); }
  has(slot: number, region: number): boolean { return this.i32[slot] === region && this.i32[slot + (WALKE.epoch >> 2)] === this.epoch; }
  set(slot: number, region: number, at: number, bits: number): void {
    const { i32 } = this;
    i32[slot] = region; i32[slot + (WALKE.epoch >> 2)] = this.epoch; i32[slot + (WALKE.at >> 2)] = at; i32[slot + (WALKE.bits >> 2)] = bits;
  }
  forget(): void {
    if (++this.epoch === 2 ** 31) { this.epoch = 1; this.clear(); }
    this.show();
  }
  private clear(): void { this.i32.fill(0, this.at, this.at + (WALKE.size << WALK_BITS >> 2)); }
  /** The register file is another vCPU's now and then. */
  show(): void { this.i32[this.epochWord] = this.epoch; }
}
/** One vCPU's TLBs, where they lie, and what has been met since they were emptied, whether its entries stand or were replaced. */
class Bank {
  /** machine address; of the tables, in words */
  readonly at: number;
  readonly tlb: number;
  readonly itlb: number;
  /** a context's local and global entries apart; the instruction TLB's pair comes last */
  readonly logs: readonly (readonly [FillLog, FillLog])[];
  /** index in `i32` of the bits for regions of large pages of which a piece has been entered (bitOf): INVLPG elsewhere mostly costs a look */
  readonly large: readonly [number, number];
  readonly itlbFlags = new Uint8Array(1 << ITLB_BITS);
  /** Which pages have been in the instruction TLB since it was emptied, by its index: jumps to them may be remembered. Local and global pages apart, each with the number of the emptying. */
  readonly fetchedLocal = new Float64Array(1 << ITLB_BITS);
  readonly fetchedGlobal = new Float64Array(1 << ITLB_BITS);
  nrLocalFlushes = 1;
  nrFlushes = 1;
  /** code has been met in the upper half on a page that is not global */
  hasLocalUpper = false;
  /** whose it is; 0: not said */
  vcpu = 0;
  /** When it was left: the generation of the p2m and the number of code marks that it was true to, and the jumps' tags. */
  generation = 0;
  codeMarks = 0;
  readonly tags: [number, number] = [0, 0];
  nrForgotAll = 0;

  constructor(v: Views, at: number) {
    this.at = at; this.tlb = at >>> 2; this.itlb = (at + ITLB_IN_BANK) >>> 2;
    this.logs = Array.from({ length: TLB_CONTEXTS + 1 }, (_, c) => [new FillLog(v, at + LOGS_IN_BANK + 2 * c * LOG.size), new FillLog(v, at + LOGS_IN_BANK + (2 * c + 1) * LOG.size)] as const);
    this.large = [at + LARGE_IN_BANK >>> 2, at + LARGE_IN_BANK + LARGE_BYTES >>> 2];
  }
}
/** A vCPU takes its turn. */
export type TlbTurn = {
  /** a number that no other vCPU has, not 0 */
  readonly vcpu: number;
  /** of its p2m now, and that which the TLBs until now are true to: another one than when a vCPU left makes its TLBs void */
  readonly generation: number;
  readonly wasGeneration: number;
  /** how many frames of its domain have become code, now and as the TLBs until now know it */
  readonly codeMarks: number;
  readonly wasCodeMarks: number;
  /** it has run nowhere else since it left */
  readonly isOurs: boolean;
  /** stores to this frame must be told of */
  isCode(frame: number): boolean;
};

export class Tlb {
  private readonly cpu: Cpu;
  private readonly i32: Int32Array;
  private bank: Bank;
  /** those that have been used, left longest ago first */
  private readonly banks: Bank[];
  /** Tables and large pages that the walk remembers: forgotten with whatever is invalidated. */
  readonly walks: Walks;
  /** WRITERS_AT's numbers */
  private readonly writers: Uint16Array;
  private readonly jumps: number;
  private readonly jumpTags: number;
  private readonly bankWord: number;
  /** what stands at `jumpTags`: the register file is another vCPU's now and then */
  private readonly tags: [number, number] = [0, 0];
  private nrForgotten = 0;
  /** how often the jumps of all banks were forgotten */
  private nrForgotAll = 0;
  /** the last address that code was looked for at */
  private fetched = 0;

  constructor(cpu: Cpu) {
    this.cpu = cpu; this.i32 = cpu.v.i32;
    this.walks = new Walks(cpu); this.writers = new Uint16Array(cpu.v.buffer, cpu.at + WRITERS_AT, FRAMES_MAX);
    this.jumps = (cpu.at + JUMPS_AT) >>> 2; this.jumpTags = (cpu.at + CPU.jumpTags.at) >>> 2; this.bankWord = (cpu.at + CPU.bank.at) >>> 2;
    this.bank = this.fresh(0); this.banks = [this.bank];
    this.use(this.bank);
    this.forgetMet();
  }
  /** A bank that was never used; whatever lies there. */
  private fresh(nr: number): Bank {
    const { i32 } = this, bank = new Bank(this.cpu.v, this.cpu.at + TLB_AT + nr * BANK_BYTES);
    for (let c = 0; c < TLB_CONTEXTS; c++) for (let i = 0; i < 1 << TLB_BITS; i++) {
      const e = bank.tlb + ((c * TLB_BYTES + i * TLBE.size) >>> 2);
      i32[e] = i32[e + 2] = noTag(i); i32[e + 1] = i32[e + 3] = 0;
    }
    i32.fill(-1, bank.itlb, bank.itlb + ((ITLBE.size << ITLB_BITS) >>> 2));
    i32.fill(0, bank.at + LOGS_IN_BANK >>> 2, bank.at + BANK_BYTES >>> 2);
    return bank;
  }
  private use(bank: Bank): void { this.bank = bank; this.i32[this.bankWord] = bank.at; }

  // Jumps ----------------------------------------------------------------------
  /** Forget the jumps of one half of the addresses (0 lower, 1 upper). */
  private forgetJumps(half: 0 | 1): void {
    if (++this.nrForgotten === JUMP_TAG.steps) {
      this.nrForgotten = 1; this.nrForgotAll++;
      this.i32.fill(0, this.jumps, this.jumps + (JUMPE.size << JUMP_BITS >> 2));
      this.tags[1 - half] = (1 - half) * JUMP_TAG.half;      // a number that is not given
    }
    this.tags[half] = this.nrForgotten * JUMP_TAG.step | half * JUMP_TAG.half;
    this.showTags();
  }
  private showTags(): void { this.i32[this.jumpTags] = this.tags[0]; this.i32[this.jumpTags + 1] = this.tags[1]; }
  private jumpEntry(linear: number): number { const lo = linear | 0; return this.jumps + ((lo ^ lo >>> JUMP_BITS) & (1 << JUMP_BITS) - 1) * (JUMPE.size >> 2); }
  /** The record at a linear address is another than a jump remembers, if one does; no region begins there. */
  correctJump(linear: number, rec: number): void {
    const { i32 } = this, lo = linear | 0, e = this.jumpEntry(linear);
    if (i32[e] === lo && (i32[e + 1]! & 0xffff) === (Math.floor(linear / 4294967296) & 0xffff)) { i32[e + (JUMPE.rec >> 2)] = rec; i32[e + (JUMPE.region >> 2)] = 0; }
  }
  /** Where a jump to an address goes is to be looked up once more. */
  forgetJump(linear: number): void {
    const { i32 } = this, e = this.jumpEntry(linear);
    if (i32[e] === (linear | 0)) i32[e] = i32[e + 1] = -1;
  }
  /** Addresses of records mean nothing any more, or regions have come or gone: forget all jumps, of all vCPUs. */
  forgetAllJumps(): void { this.nrForgotAll++; this.forgetJumps(0); this.forgetJumps(1); }

  // Entries --------------------------------------------------------------------
  /** Index of the data entry that a linear address has in a context, in words. */
  entryOf(context: number, linear: number, bank = this.bank): number { return bank.tlb + ((context * TLB_BYTES + (linear >>> 12 & TLB_MASK) * TLBE.size) >>> 2); }
  private dataEntry(context: number, index: number, bank = this.bank): number { return bank.tlb + ((context * TLB_BYTES + index * TLBE.size) >>> 2); }
  private codeEntry(index: number, bank = this.bank): number { return bank.itlb + ((index * ITLBE.size) >>> 2); }
  /** Enter a page for data. @param canWrite a store may go ahead with nothing else to do */
  enter(context: number, linear: number, machine: number, flags: number, canWrite: boolean): void {
    const { i32 } = this, e = this.entryOf(context, linear), page = linear & ~0xfff, hi = Math.floor(linear / 4294967296) | 0, none = noTag(linear >>> 12 & TLB_MASK);
    if (this.letsWrite(e, none)) { this.cpu.beforeForget(); this.forbidWrites(e, none); }
    if (canWrite) this.writers[machine >>> 12]!++;
    i32[e] = page; i32[e + 1] = hi;
    if (canWrite) { i32[e + 2] = page; i32[e + 3] = hi; }
    i32[e + (TLBE.add >> 2)] = machine - page;
    i32[e + (TLBE.frame >> 2)] = machine / 4096;
    i32[e + (TLBE.flags >> 2)] = flags;
    if (flags & (LARGE | HUGE)) this.noteLarge(linear, flags);
    this.bank.logs[context]![flags & TLBE.global]!.add(linear >>> 12 & TLB_MASK);
  }
  /** The machine page that the instruction TLB has for a linear address, or -1. */
  codeAt(linear: number, mode: number): number {
    const { i32 } = this, e = this.codeEntry(itlbIndex(linear));
    this.fetched = linear;
    return i32[e] === (linear & ~0xfff | mode) && i32[e + 1] === (Math.floor(linear / 4294967296) | 0) ? i32[e + 2]! >>> 0 : -1;
  }
  /** Enter a page for code (tag: page | CPU.mode; key: machine page + (CPU.mode without the user bit) << 32; an empty tag is -1). */
  enterCode(linear: number, mode: number, machine: number, flags: number): void {
    const { i32, bank } = this, index = itlbIndex(linear), e = this.codeEntry(index);
    i32[e] = linear & ~0xfff | mode; i32[e + 1] = Math.floor(linear / 4294967296) | 0;
    i32[e + 2] = machine; i32[e + 3] = mode & ~MODE.user;
    this.bank.itlbFlags[index] = flags;
    // the entry's place may have held a page that jumps are remembered to: that mapping still stands until it is invalidated
    if (linear < 0 && !(flags & TLBE.global)) bank.hasLocalUpper = true;
    if (flags & (LARGE | HUGE)) this.noteLarge(linear, flags);
    if (flags & TLBE.global) bank.fetchedGlobal[index] = bank.nrFlushes; else bank.fetchedLocal[index] = bank.nrLocalFlushes;
    this.bank.logs[TLB_CONTEXTS]![flags & TLBE.global]!.add(index);
  }
  private noteLarge(linear: number, flags: number): void { const bit = bitOf(linear, flags); this.i32[this.bank.large[flags & TLBE.global]! + (bit >>> 5)]! |= 1 << (bit & 31); }
  private forgetLarge(global: 0 | 1): void { this.cpu.bulk.fillBytes(this.bank.large[global] * 4, 0, LARGE_BYTES); }
  private mayBeLarge(linear: number, flags: number): boolean { const bit = bitOf(linear, flags); return this.bank.large.some((at) => (this.i32[at + (bit >>> 5)]! >>> (bit & 31) & 1) !== 0); }

  private drop(context: number, index: number, bank = this.bank): void {
    if (context === TLB_CONTEXTS) { const e = this.codeEntry(index, bank); this.i32[e] = this.i32[e + 1] = -1; return; }
    const e = this.dataEntry(context, index, bank);
    this.forbidWrites(e, noTag(index));
    this.i32[e] = noTag(index); this.i32[e + 1] = 0;
  }
  private letsWrite(e: number, none: number): boolean { return this.i32[e + 2] !== none || this.i32[e + 3] !== 0; }
  /** Clear an entry's write tag. @param none noTag of its index */
  private forbidWrites(e: number, none: number): void {
    const { i32 } = this;
    if (!this.letsWrite(e, none)) return;
    this.writers[i32[e + (TLBE.frame >> 2)]!]!--;
    i32[e + 2] = none; i32[e + 3] = 0;
  }
  private flagsOf(context: number, index: number): number { return context === TLB_CONTEXTS ? this.bank.itlbFlags[index]! : this.i32[this.dataEntry(context, index) + (TLBE.flags >> 2)]!; }

  // Flushing -------------------------------------------------------------------
  /** Forget everything that this vCPU has: another p2m, or a control bit that changes what the tables mean. */
  flushAll(): void {
    this.cpu.beforeForget();
    this.empty(this.bank);
    this.forgetMet();
  }
  /** The same for all that ran here: somebody else has written to frames with code, whose records and jumps they all share, or the p2m has changed. */
  flushEveryone(): void {
    this.flushAll();
    for (const bank of this.banks) if (bank !== this.bank) bank.generation = Number.NaN;        // emptied when its vCPU comes
  }
  private empty(bank: Bank): void {
    for (let c = 0; c <= TLB_CONTEXTS; c++) for (const log of bank.logs[c]!) {
      for (let n = 0; n < log.nr; n++) this.drop(c, log.entry(n), bank);
      log.clear();
    }
  }
  private forgetMet(): void {
    this.bank.nrFlushes++; this.bank.nrLocalFlushes++;
    this.forgetLarge(0); this.forgetLarge(1); this.walks.forget(); this.forgetJumps(0); this.forgetJumps(1);
  }
  /** CR3 was loaded: forget all but global pages. */
  flushLocal(): void {
    const { bank } = this;
    this.cpu.beforeForget();
    bank.nrLocalFlushes++;
    for (let c = 0; c <= TLB_CONTEXTS; c++) {
      const log = this.bank.logs[c]![0];
      for (let n = 0; n < log.nr; n++) {
        const i = log.entry(n);
        if (!(this.flagsOf(c, i) & TLBE.global)) this.drop(c, i);
      }
      log.clear();
    }
    this.forgetLarge(0); this.walks.forget(); this.forgetJumps(0);
    if (bank.hasLocalUpper) { this.forgetJumps(1); bank.hasLocalUpper = false; }
  }
  /** INVLPG: the page of `linear`, in every context, and all pieces of a large page around it. */
  invlpg(linear: number): void {
    const page = linear & ~0xfff, hi = Math.floor(linear / 4294967296) | 0, { bank } = this;
    this.cpu.beforeForget();
    this.walks.forget();
    for (let c = 0; c < TLB_CONTEXTS; c++) {
      const e = this.entryOf(c, linear);
      if (this.i32[e] === page && this.i32[e + 1] === hi) this.drop(c, linear >>> 12 & TLB_MASK);
    }
    const i = itlbIndex(linear), e = this.codeEntry(i);
    if ((this.i32[e]! & ~0xfff) === page && this.i32[e + 1] === hi) this.drop(TLB_CONTEXTS, i);
    const isLarge = this.mayBeLarge(linear, LARGE) || this.mayBeLarge(linear, HUGE);
    if (isLarge) this.dropLarge(page, hi);
    // most pages that are invalidated hold data: a process that is copied would otherwise forget the kernel's jumps at each page it writes to
    if (isLarge || bank.fetchedLocal[i] === bank.nrLocalFlushes || bank.fetchedGlobal[i] === bank.nrFlushes) this.forgetJumps(linear < 0 ? 1 : 0);
  }
  private dropLarge(page: number, hi: number): void {
    for (let c = 0; c <= TLB_CONTEXTS; c++) for (const log of this.bank.logs[c]!) for (let n = 0; n < log.nr; n++) {
      const i = log.entry(n), flags = this.flagsOf(c, i);
      if (!(flags & (LARGE | HUGE))) continue;
      const e = c === TLB_CONTEXTS ? this.codeEntry(i) : this.dataEntry(c, i);
      if (this.i32[e + 1] === hi && (this.i32[e]! ^ page) >>> (flags & HUGE ? 30 : 22) === 0) this.drop(c, i);
    }
  }

  // Frames that hold code -------------------------------------------------------
  /** Stores to these frames must come to slowStore from now on. @returns the frames that could be written to without */
  forbidFrames(isForbidden: (frame: number) => boolean): number[] {
    this.walks.forget();
    const { i32 } = this, found: number[] = [];
    for (let c = 0; c < TLB_CONTEXTS; c++) for (const log of this.bank.logs[c]!) for (let n = 0; n < log.nr; n++) {
      const index = log.entry(n), e = this.dataEntry(c, index), frame = i32[e + (TLBE.frame >> 2)]!;
      if (!this.letsWrite(e, noTag(index)) || !isForbidden(frame)) continue;
      this.forbidWrites(e, noTag(index));
      found.push(frame);
    }
    return found;
  }
  /** A frame (machine address / 4096) has code decoded now: stores to it must come to slowStore. */
  protectFrame(frame: number): void {
    this.walks.forget();                               // one of them may have become code
    const { i32, writers } = this, isIt = (e: number, index: number): void => { if (i32[e + (TLBE.frame >> 2)] === frame) this.forbidWrites(e, noTag(index)); };
    if (writers[frame] === 0) return;
    this.cpu.beforeForget();
    for (let c = 0; c < TLB_CONTEXTS; c++) isIt(this.entryOf(c, this.fetched), this.fetched >>> 12 & TLB_MASK);
    for (let b = this.banks.length - 1; b >= 0 && writers[frame] !== 0; b--) {
      const bank = this.banks[b]!;
      for (let c = 0; c < TLB_CONTEXTS; c++) for (const log of bank.logs[c]!) for (let n = 0; n < log.nr; n++) isIt(this.dataEntry(c, log.entry(n), bank), log.entry(n));
    }
  }

  // Turns ----------------------------------------------------------------------
  /** Another vCPU's registers are in the register file: its own TLBs, as it left them, where they are still true; else empty ones. Without a turn nothing is kept. */
  take(turn?: TlbTurn): void {
    const { bank, banks } = this;
    if (!turn || bank.vcpu === 0 || bank.vcpu === turn.vcpu) {
      for (const b of turn ? [bank] : banks) this.empty(b);
      bank.vcpu = turn?.vcpu ?? 0;
      this.use(bank);
      this.forgetMet();
      return;
    }
    // whoever ran here was looked back at when it left (CodeFrames.lookBack)
    bank.generation = turn.wasGeneration; bank.codeMarks = turn.wasCodeMarks; bank.nrForgotAll = this.nrForgotAll;
    bank.tags[0] = this.tags[0]; bank.tags[1] = this.tags[1];
    const own = banks.find((b) => b.vcpu === turn.vcpu), next = own ?? (banks.length < NR_BANKS ? this.fresh(banks.length) : banks[0]!), known = banks.indexOf(next);
    if (known >= 0) banks.splice(known, 1);
    banks.push(next);
    this.use(next);
    this.walks.forget();
    if (next === own && turn.isOurs && own.generation === turn.generation) {
      if (own.codeMarks !== turn.codeMarks) this.forbidFrames(turn.isCode);
      if (own.nrForgotAll === this.nrForgotAll) { this.tags[0] = own.tags[0]; this.tags[1] = own.tags[1]; this.showTags(); } else { this.forgetJumps(0); this.forgetJumps(1); }
      return;
    }
    this.empty(next);
    next.vcpu = turn.vcpu;
    this.forgetMet();
  }
}
