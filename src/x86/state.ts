/**
 * The processor's registers, as one struct in machine memory. A pCPU has one such area (the "register file") that generated code
 * addresses relative to its base; a vCPU that is not running keeps the same bytes in its own struct, so a switch is a copy.
 * SDM Vol. 3A ch. 2 and 3, Vol. 2.
 */
import { bytes, i32, i64, struct, u16, u32, u64, u8 } from "../base/struct.ts";

export const RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7;
/** Segment registers by their number in the instruction encoding; LDTR and TR follow. */
export const ES = 0, CS = 1, SS = 2, DS = 3, FS = 4, GS = 5, LDTR = 6, TR = 7;

export const CPU = struct(0x600, {
  /** sixteen general registers, 8 bytes each */
  gpr: bytes(0x000, 128),
  /** always zero: "no base", "no index", "flat segment" */
  zero: i64(0x080),
  /** rip of offset 0 of the page that is being executed: (linear page - CS.base), kept by jumps; an instruction's rip is ripBase + its offset */
  ripBase: i64(0x088),
  /** rip; stored at exits and faults only (then: of the instruction that faulted or comes next) */
  rip: i64(0x090),
  /** the arithmetic flags as two words: see flags.ts */
  fres: i64(0x098), faux: i64(0x0a0),
  /** EFLAGS without the arithmetic flags (CF PF AF ZF SF OF are zero here); bit 1 set */
  eflags: u32(0x0a8),
  /** jumps until the slice is over; written -1 by anyone who wants this pCPU's attention (Atomics) */
  budget: i32(0x0ac),
  /** 0, or 1 + vector: the instruction at rip faulted; see FAULT_* for the others */
  fault: i32(0x0b0),
  /** error code of the fault, or -1 where the vector has none */
  errorCode: i32(0x0b4),
  cr2: i64(0x0b8),
  /** why run() shall return: EXIT.*; 0: go on */
  exit: i32(0x0c0),
  /** the record whose link wants filling, or 0 */
  link: i32(0x0c4),
  /** wasm address of the TLB for the present privilege (kernel, kernel with AC, user) */
  tlb: i32(0x0c8),
  /** code size and privilege, part of every instruction-TLB tag: MODE.* */
  mode: i32(0x0cc),
  /** 0 normally; 1: blocked by MOV SS / STI for one instruction */
  shadow: i32(0x0d0),
  cpl: i32(0x0d4),
  /** 0xffff, 0xffffffff or all ones by SS.B and mode */
  spMask: i64(0x0d8),
  /** instructions retired, counted by loops that count */
  retired: i64(0x0e0),
  /** rip of the next instruction, stored before a system instruction's helper runs; a helper that transfers control overwrites it */
  nextRip: i64(0x0e8),
  cr0: u64(0x0f0), cr3: u64(0x0f8), cr4: u64(0x100), cr8: u64(0x108),
  efer: u64(0x110),
  /** eight segments of SEG.sizeof: ES CS SS DS FS GS LDTR TR; base comes first, so a segment's address is its base's */
  seg: bytes(0x118, 8 * 16),
  gdtrBase: u64(0x198), idtrBase: u64(0x1a0), gdtrLimit: u32(0x1a8), idtrLimit: u32(0x1ac),
  dr: bytes(0x1b0, 8 * 8),
  star: u64(0x1f0), lstar: u64(0x1f8), cstar: u64(0x200), sfmask: u64(0x208), kernelGsBase: u64(0x210),
  sysenterCs: u64(0x218), sysenterEsp: u64(0x220), sysenterEip: u64(0x228),
  tscAux: u64(0x230), pat: u64(0x238), apicBase: u64(0x240), miscEnable: u64(0x248), mtrrDefType: u64(0x250), mtrrFixed: bytes(0x258, 11 * 8),
  mtrrVar: bytes(0x2b0, 16 * 8),
  xcr0: u64(0x330), tscAdjust: u64(0x338),
  mxcsr: u32(0x340), fcw: u16(0x344), fsw: u16(0x346), ftw: u8(0x348), fop: u16(0x34a), fcs: u16(0x34c), fds: u16(0x34e),
  fip: u64(0x350), fdp: u64(0x358),
  /** eight x87 registers, physical numbering (ST(i) is (TOP + i) & 7), 16 bytes each: 64-bit significand, then sign and exponent (16 bits), then zero.
   *  The MMX registers are the significands. ftw holds a bit a register, set when NOT empty (the FXSAVE form). fsw holds TOP in bits 11-13. */
  st: bytes(0x360, 8 * 16),
  /** sixteen XMM registers */
  xmm: bytes(0x3e0, 16 * 16),
  /** vector and flags of an exception being delivered (for #DF); -1 when none */
  delivering: i32(0x4e0),
  /** HLT: waiting for an interrupt */
  halted: i32(0x4e4),
  /** sixteen bytes for helpers that return 128 bits */
  wide: bytes(0x4f0, 16),
  /** CS.base as instruction fetch uses it: 0 in 64-bit mode; derived, like mode, tlb, cpl and spMask (Cpu.setMode) */
  csBase: i64(0x500),
  /** the record that has become hot, or 0 */
  hot: i32(0x508),
  /** an interrupt waits that could not be taken: whatever lets interrupts in must leave to the run loop */
  irqPending: i32(0x50c),
  /** the instruction behind the last STI: no interrupt before it */
  stiRip: i64(0x510),
  /** how fres and faux are to be read (gen-flags.ts: flagCode); 0 but between one region and the next */
  lazy: i32(0x518),
  /** the record of a lean region that has been stayed in for long, or 0, and its page's ripBase */
  stayed: i32(0x51c), stayedBase: i64(0x520),
  /** tags of the jumps remembered (layout.ts) to addresses of the lower and of the upper half */
  jumpTags: bytes(0x528, 8),
  /** machine address of what the last probeWrite asked about, 0: only to be reached by hand */
  probed: i32(0x530),
  /** PAUSEs left until somebody looks whether another vCPU could use the time */
  pauses: i32(0x534),
  /** the part of tscAdjust that the guest does not see: it came here from another machine, whose counter stood elsewhere */
  tscHidden: u64(0x538),
  /** 1 from an NMI's delivery to the next IRET: no other one meanwhile */
  nmiMasked: u32(0x540),
  /** machine address of the TLBs of the vCPU whose registers these are (layout.ts); the pCPU's own, wherever they come from */
  bank: i32(0x544),
  /** IA32_SPEC_CTRL: kept, and without effect */
  specCtrl: u64(0x548),
  spare: bytes(0x550, 0x10),
  /** what a refill of the TLB in generated code goes by (Platform.walk), the pCPU's own like `bank`: machine addresses of the p2m's root (0: it leaves all to Mmu.fill), of the frame table, and of two words that must be zero */
  p2mRoot: u32(0x560), frameTable: u32(0x564), p2mBusy: bytes(0x568, 8),
  /** other pCPUs run vCPUs of the same domain */
  isShared: i32(0x570),
  /** bits of a page table entry's upper half that no address has */
  reservedHi: i32(0x574),
  /** number of the present entries of WALKS_AT */
  walkEpoch: i32(0x578),
});

/** A segment register with its hidden part. `attr`: bits 0-7 the descriptor's access byte, 8 AVL, 9 L, 10 D/B, 11 G, as in public/arch-x86/hvm/save.h; bit 12: unusable. `limit` is in bytes, expanded. */
export const SEG = struct(16, { base: u64(0), limit: u32(8), sel: u16(12), attr: u16(14) });
export const ATTR = { type: 0xf, s: 0x10, dpl: 0x60, p: 0x80, avl: 0x100, l: 0x200, db: 0x400, g: 0x800, unusable: 0x1000 } as const;
export const gprAt = (i: number): number => CPU.gpr.at + i * 8;
export const segAt = (i: number): number => CPU.seg.at + i * SEG.sizeof;
export const xmmAt = (i: number): number => CPU.xmm.at + i * 16;

/** CPU.mode: what the decoder and the instruction TLB must tell apart. Bits 0-1: code size; bit 2: CPL is 3; then CR0.TS, CR0.EM and CR4.OSFXSR clear,
 *  which decide whether x87, MMX and SSE instructions decode to #NM or #UD. */
export const MODE = { code16: 0, code32: 1, code64: 2, sizeMask: 3, user: 4, ts: 8, em: 16, noFxsr: 32 } as const;

/** CPU.exit. */
export const EXIT = { none: 0, slice: 1, halt: 2, yield: 3, tripleFault: 4, shutdown: 5, internal: 6, await: 7 } as const;

/** Exception vectors, SDM Vol. 3A table 6-1. */
export const VECTOR = { DE: 0, DB: 1, NMI: 2, BP: 3, OF: 4, BR: 5, UD: 6, NM: 7, DF: 8, TS: 10, NP: 11, SS: 12, GP: 13, PF: 14, MF: 16, AC: 17, MC: 18, XM: 19 } as const;
/** MXCSR, SDM Vol. 1 figure 10-3. flags: bits 0-5, softfloat's FLAG.*, with PE the last; masks: bits 7-12, with PM the last. */
export const MXCSR = { flags: 0x3f, PE: 0x20, DAZ: 0x40, masks: 0x1f80, PM: 0x1000, RC: 0x6000, FTZ: 0x8000 } as const;
/** EFLAGS bits, SDM Vol. 1 figure 3-8. */
export const EFLAGS = { CF: 1, fixed: 2, PF: 4, AF: 0x10, ZF: 0x40, SF: 0x80, TF: 0x100, IF: 0x200, DF: 0x400, OF: 0x800, IOPL: 0x3000, NT: 0x4000, RF: 0x10000, VM: 0x20000, AC: 0x40000, VIF: 0x80000, VIP: 0x100000, ID: 0x200000, arith: 0x8d5 } as const;
export const CR0 = { PE: 1, MP: 2, EM: 4, TS: 8, ET: 0x10, NE: 0x20, WP: 0x10000, AM: 0x40000, NW: 0x20000000, CD: 0x40000000, PG: 0x80000000 } as const;
export const CR4 = { VME: 1, PVI: 2, TSD: 4, DE: 8, PSE: 0x10, PAE: 0x20, MCE: 0x40, PGE: 0x80, PCE: 0x100, OSFXSR: 0x200, OSXMMEXCPT: 0x400, UMIP: 0x800, LA57: 0x1000, VMXE: 0x2000, FSGSBASE: 0x10000, PCIDE: 0x20000, OSXSAVE: 0x40000, SMEP: 0x100000, SMAP: 0x200000 } as const;
/** AIBRSE: automatic IBRS, AMD APM Vol. 2 3.1.7; kept, and without effect: nothing here speculates. */
export const EFER = { SCE: 1, LME: 0x100, LMA: 0x400, NXE: 0x800, AIBRSE: 0x200000 } as const;
/** #PF error code, SDM Vol. 3A 4.7. */
export const PFERR = { P: 1, W: 2, U: 4, RSVD: 8, I: 16 } as const;
