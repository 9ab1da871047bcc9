/** A processor's state between two instructions, as QEMU tells it and as our engine takes it up. */
export interface Segment { readonly sel: number; readonly base: bigint; readonly limit: number; /** descriptor bits 40-55 as in public/arch-x86/hvm/save.h: type, S, DPL, P, AVL, L, D/B, G */ readonly attr: number }
export const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const;
export interface Snapshot {
  /** rax rcx rdx rbx rsp rbp rsi rdi r8 ... r15 */
  readonly gpr: bigint[];
  readonly rip: bigint;
  readonly rflags: number;
  readonly segments: readonly Segment[];
  readonly gdtr: readonly [base: bigint, limit: number];
  readonly idtr: readonly [base: bigint, limit: number];
  readonly cr0: bigint; readonly cr2: bigint; readonly cr3: bigint; readonly cr4: bigint; readonly cr8: bigint; readonly efer: bigint; readonly kernelGsBase: bigint;
  readonly mxcsr: number;
  /** two words a register, low first */
  readonly xmm: bigint[];
}

/** What is compared after each step, cheap to fetch. */
export interface Registers { gpr: bigint[]; rip: bigint; rflags: number; selectors: number[]; cr0: bigint; cr2: bigint; cr3: bigint; cr4: bigint; efer: bigint; mxcsr: number; xmm: bigint[] }
