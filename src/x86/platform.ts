/**
 * What the processor asks of the world around it. The hypervisor implements it; tests implement it with a few lines.
 * All calls come from the pCPU's own thread, in the middle of an instruction; `cpu` state is current but for rip-relative laziness:
 * registers in the CPU struct are valid, `CPU.rip` is the instruction's own address.
 */
export interface Platform {
  /** Guest frame to machine frame. Returns the frame's machine byte address and rights, packed: address (multiple of 4096) | P2M_* bits; 0: nothing there (MMIO or a hole). */
  frameOf(gfn: number): number;
  /** The vCPU leaves (EXIT.await) at an instruction that needs a guest frame that frameOf called P2M_AWAITED. Absent, like the next: there are none. */
  awaited?(gfn: number): void;
  /** The same where there is no leaving: wait. @returns whether the frame has come; if not, there is nothing there */
  awaitFrame?(gfn: number): boolean;
  /**
   * How generated code finds out what frameOf says: machine addresses of the p2m's root (memory/p2m.ts), of the frame table (memory/frames.ts), and of two words; while both are zero, a frame is the
   * p2m's entry, and has code where FRAME.codeCpus is not zero. Absent: by frameOf only. isShared: other pCPUs may run in this memory.
   */
  walk?(): { readonly p2mRoot: number; readonly frameTable: number; readonly busy: readonly [number, number]; readonly isShared: boolean };
  /** A frame (machine address / 4096) that frameOf called P2M_CLEAN is about to be written; called again for one that is dirty already now and then. */
  dirtied(frame: number): void;
  /** An access to a guest-physical address without a frame (local APIC, hole). `size` 1, 2, 4, 8; never crosses a page. A hole reads all ones. */
  mmioRead(gpa: number, size: number): bigint;
  mmioWrite(gpa: number, size: number, value: bigint): void;
  /** Port I/O, `size` 1, 2 or 4. The I/O permission bitmap has been checked. A port nobody has reads all ones. */
  ioRead(port: number, size: number): number;
  ioWrite(port: number, size: number, value: number): void;
  /** Fill eax, ebx, ecx, edx into out[0..3]. The bits that mirror CR4 (OSXSAVE) are set by the processor afterwards. */
  cpuid(leaf: number, subleaf: number, out: Uint32Array): void;
  /** An MSR the processor does not hold itself (x2APIC, Xen's own). null / false: #GP(0). */
  rdmsr(msr: number): bigint | null;
  wrmsr(msr: number, value: bigint): boolean;
  /** VMCALL or VMMCALL at CPL 0 (or CPL 3 where allowed by the table): reads and writes registers of the CPU struct itself. */
  hypercall(): void;
  /** The time-stamp counter before TSC_ADJUST. */
  tsc(): bigint;
  /** The same as generated code asks for it: whole ticks as this thread has them, and the address of the word (u64) that keeps all threads in step; 0: there is no other. */
  ticks(): number;
  readonly tscWord: number;
  /** Machine address of a word (see memory/lock.ts) that locked accesses hold which no single atomic operation can make; 0 or absent: this processor is alone. */
  readonly busLock?: number;
  /** Machine address of a word that is not zero while something is asked of this pCPU: run() returns when it comes by. Absent: nobody asks. */
  readonly requestWord?: number;
  /** The budget of run() stands: what was asked of this pCPU before must be seen to now, for the budget that told so is overwritten. */
  entered?(): void;
  /** The guest has executed many PAUSEs: another vCPU may be what it waits for. */
  paused?(): void;
  /** The vector of the most important interrupt that may be delivered now (TPR considered), or -1. */
  pendingVector(): number;
  /** The processor takes that vector (acknowledge: IRR to ISR, or clear the upcall's latch). */
  acknowledge(vector: number): void;
  /** Take the NMI that waits, if one does: it will be delivered now. Absent: there are none. */
  takeNmi?(): boolean;
  /** MOV to CR8 / TPR. */
  setTpr(tpr: number): void;
  getTpr(): number;
}
/** Rights in what frameOf returns. */
export const P2M_READ = 1, P2M_WRITE = 2, P2M_CODE = 4 /* some pCPU has decoded code from this frame: writes must say so */, P2M_CLEAN = 8 /* the first write must say so, by `dirtied` */, P2M_AWAITED = 16 /* its bytes are on their way: not to be touched */;
