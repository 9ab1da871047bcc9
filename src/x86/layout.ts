/** A pCPU's private area in machine memory: register file, TLBs, decoded-instruction cache. All offsets are relative to its base. */
import { CPU } from "./state.ts";

/** Software TLB. Three contexts, so that neither a ring change nor STAC/CLAC costs a refill; CPU.tlb holds the wasm address of the present one. */
export const TLB_AT = 0x1000, TLB_BITS = 12, TLB_CONTEXTS = 3;
export const CONTEXT = { kernel: 0, kernelAc: 1, user: 2 } as const;
/** Entry: tag for reads (i64 linear page address), tag for writes (i64), addend (i32: host address - low half of linear address), machine frame (u32), flags (u32). */
export const TLBE = { size: 32, read: 0, write: 8, add: 16, frame: 20, flags: 24, global: 1 } as const;
export const TLB_BYTES = TLBE.size << TLB_BITS;
/** Low half of a tag that no address can hit which looks into that entry: the page beside, in the entry's own place. Its high half is zero. */
export const noTag = (index: number): number => (index ^ 1) << 12;

/** Instruction TLB: linear page | CPU.mode to the page's key. Entry: tag i64, key i64. */
export const ITLB_BITS = 12, ITLBE = { size: 16, tag: 0, key: 8 } as const;
/**
 * Which entries of a table have been filled since it was emptied: how many (u32), for each entry whether it has (a byte), and their numbers (u16). A context's local entries have one, its global
 * ones another; the instruction TLB's come last.
 */
export const LOG = { nr: 0, logged: 16, entries: 16 + (1 << TLB_BITS), size: 16 + (3 << TLB_BITS) } as const;
/** Of which 4 MiB or 1 GiB regions of large pages pieces may have been entered: a bit for a hash of each, local ones and global ones apart. */
export const LARGE_BITS = 13, LARGE_BYTES = 1 << LARGE_BITS >> 3;
/** A vCPU's TLBs lie together, data before instructions, then their logs; CPU.bank holds the address of the present vCPU's. */
export const ITLB_IN_BANK = TLB_CONTEXTS * TLB_BYTES, LOGS_IN_BANK = ITLB_IN_BANK + (ITLBE.size << ITLB_BITS), LARGE_IN_BANK = LOGS_IN_BANK + 2 * (TLB_CONTEXTS + 1) * LOG.size;
export const BANK_BYTES = Math.ceil((LARGE_IN_BANK + 2 * LARGE_BYTES) / 64) * 64, NR_BANKS = 8;
/** Its index mixes higher bits in, of other 16 MiB: a kernel's text, which is less, has no two pages in one entry. The same in wasm: runtime.ts. */
export const ITLB_MIX = 12;
export const itlbIndex = (linear: number): number => (linear >>> 12 ^ linear >>> 12 + ITLB_MIX) & (1 << ITLB_BITS) - 1;
/**
 * Where jumps went: hash of a linear address to the record there. Entry: key i64, the address' low 48 bits under a tag of 16, CPU.jumpTags[address < 0] | CPU.mode; record u32; table slot
 * of the region that begins there, so that it is entered without waiting for the record, or 0, u16; arrivals until the record counts them, JUMP_CHUNK at a time, u16.
 * Forgetting all of a half is another tag.
 */
export const JUMPS_AT = TLB_AT + NR_BANKS * BANK_BYTES, JUMP_BITS = 13, JUMPE = { size: 16, key: 0, rec: 8, region: 12, count: 14 } as const, JUMP_CHUNK = 64;
/** A tag: CPU.mode, whether the address is below 0, and a number that grows. */
export const JUMP_TAG = { half: 1 << 6, step: 1 << 8, steps: 1 << 8 } as const;
/** Code cache index: key of an instruction (machine address + code size << 32) to its record. Entry: key i64, record u32. */
export const CODE_AT = JUMPS_AT + (JUMPE.size << JUMP_BITS), CODE_BITS = 18, CODEE = { size: 16, key: 0, rec: 8 } as const;
/**
 * Where 2 MiB regions met in long mode end: at a table of the last level, or a large page's entry. Entry: the region's number i32, CPU.walkEpoch when it was met i32, its machine address u32, and what
 * all levels above agree on: PTE.US and RW as they stand, bit 0: NX, bits 3 and 4: the level (1: a table, else the entry itself); rights in the frame from bit 8.
 */
export const WALKS_AT = CODE_AT + (CODEE.size << CODE_BITS), WALK_BITS = 8, WALKE = { size: 16, region: 0, epoch: 4, at: 8, bits: 12 } as const;
/** How many refills of the TLB generated code has made, u32, for counters. */
export const REFILLS_AT = WALKS_AT + (WALKE.size << WALK_BITS);
/** How many TLB entries, of all banks, let stores to a frame through, u16: a frame that turns into code is usually found without a search. */
export const WRITERS_AT = REFILLS_AT + 64, FRAMES_MAX = 1 << 20;
/**
 * What instructions of each shape have in common (shapes.ts), in words: stubs for a direct jump that stays on its page and for one that leaves it (every other instruction has the first; 0: not known
 * yet), REC's operands and registers as they are in the record, imm and disp where the bytes have none, and HOW.
 */
export const SHAPE = { size: 32, stub: 0, crossStub: 4, operands: 8, registers: 12, imm: 16, disp: 20, how: 24 } as const, SHAPES_AT = WRITERS_AT + 2 * FRAMES_MAX;
/** The tree that finds them: nodes of a u16 for each byte. 0: nothing is known, below NODES_MAX: the next node, else NODES_MAX more than the shape's number. Guests choose the bytes: more than any program has are decoded anew each time. */
export const NODE_BYTES = 512, NODES_MAX = 8192, SHAPES_MAX = 65536 - NODES_MAX, TREE_AT = SHAPES_AT + SHAPES_MAX * SHAPE.size;
/** Instructions of a run at most. What records.ts and code-cache.ts know of the run that is being decoded: where the next record goes; offset of the next instruction, how many there were, does a call return to it; direct jumps within the page: record, offset. */
export const MAX_RUN = 64, RUN = { next: 0, off: 4, nr: 8, isReturn: 12, nrJumps: 16, jumps: 32, jumpSize: 8, size: 32 + 8 * (MAX_RUN + 4) } as const, RUN_AT = TREE_AT + NODES_MAX * NODE_BYTES;
/** A page's records by offset (record-map.ts): for each piece of so many bytes the first of a chain. Those of a page that has none yet. */
export const HEADS = { pieceBits: 5, bytes: 4 * 4096 >> 5 } as const, NO_HEADS_AT = Math.ceil((RUN_AT + RUN.size) / 64) * 64;
export const RECS_AT = NO_HEADS_AT + HEADS.bytes;
/** A pCPU's whole area in bytes; multiple of 64 KiB. Pages never touched cost nothing. */
export const PCPU_BYTES = 64 << 20;

/** Where records end and what is seldom wanted of them begins: as far behind each record. */
export const RECS_BYTES = Math.floor((PCPU_BYTES - RECS_AT) / 2 / 64) * 64;
/**
 * A decoded instruction: half a line of the cache, since what runs now and then waits for it. handler: table slot that executes it (its stub, a region that begins here, or `stale`); d, s: addresses
 * of operand slots in the CPU struct (or plain numbers, by form), base, index: of registers; seg: address of the segment / 8; scale: of the index | length << LENGTH_SHIFT; off: offset in its page, above 4095 for the jump behind the last one; block: 1 + the block of the
 * region that begins here, or 0; imm, disp: as numbers of 32 bits (a form that is `big` reads bigImm and bigDisp); imm of a direct jump: the page offset it goes to; link, in place of disp: the record
 * there; guess, in place of imm: where an indirect call went last; heat: arrivals left until it is worth translating; data: the region's data block. Behind RECS_BYTES, stub: its stub; stay: how much
 * longer, in long stays, until that region is worth making wide; where no region begins, whether the record is WARM; more: the next in its page's chain (record-map.ts).
 */
export const REC = {
  size: 32, handler: 0, d: 4, s: 6, base: 8, index: 9, scale: 10, seg: 11, off: 12, block: 14, imm: 16, guess: 16, disp: 20, link: 20, heat: 24, data: 28,
  stub: RECS_BYTES, stay: RECS_BYTES + 4, bigImm: RECS_BYTES + 8, bigDisp: RECS_BYTES + 16, more: RECS_BYTES + 24,
} as const;
/**
 * In a lean region's data block, a place where it is left: the record to go on with (u32; 0: none known), its position (i32), and LEAVES | the number of instructions done that nobody has counted
 * (signed) << SITE_SHIFT (i32).
 */
export const SITE = { size: 12, rec: 0, pos: 4, how: 8 } as const, SITE_SHIFT = 2;
/** How: with the instruction undone, for the interpreter's stub (or with a fault recorded); to whatever is there; to the run loop. */
export const LEAVES = { undone: 0, to: 1, end: 2 } as const;
/** REC.stay of a record that has been met so often that regions take it in. */
export const WARM = 1;
/** REC.scale's parts. */
export const LENGTH_SHIFT = 4, SCALE_MASK = 3;

if (ITLB_BITS !== TLB_BITS) throw new Error("A log is for tables of one size");
if (CPU.sizeof > TLB_AT) throw new Error("The CPU struct reaches into the TLB");
