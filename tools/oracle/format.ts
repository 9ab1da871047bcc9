/**
 * Cases and results as bytes: what the generator writes, the native harness (native.c has the same offsets) and the engine read.
 * A case is one or several 64-bit user-mode instructions with the whole register state; a result is the state after it or at its fault.
 */
import { bytes, struct, u32, u64 } from "../../src/base/struct.ts";

/** The data window: two pages that registers point into, with nothing mapped around them. GS.base is its address. */
export const WINDOW = 0x10000000, WINDOW_BYTES = 8192;
/** The code pages, readable, writable and executable; filled with int3 around the case. */
export const CODE = 0x20000000, CODE_BYTES = 8192;
/** Longest code of a case, and the highest offset it may start at. */
export const CODE_MAX = 80, CODE_OFFSET_MAX = CODE_BYTES - CODE_MAX - 16;
export const PATCH_MAX = 128, CHANGES_MAX = 28;
/** Result.trap when the code ran to its end, and when it did not end. Otherwise: the vector. */
export const NO_TRAP = 0xffffffff, TRAP_TIMEOUT = 0xfffffffe;

export const HEADER = struct(64 + WINDOW_BYTES, { magic: u32(0), nrCases: u32(4), window: bytes(64, WINDOW_BYTES) });
export const MAGIC = 0x4c43524f;
/** `compat`: 32-bit code in compatibility mode (then only the low halves of eight general registers count). The patch is laid over the window's contents for this case. `fx` is an FXSAVE64 image (bytes 0-415). */
export const CASE = struct(1024, {
  codeLen: u32(0), codeOffset: u32(4), rflags: u64(8), gpr: bytes(16, 128), code: bytes(144, CODE_MAX),
  patchOffset: u32(224), patchLen: u32(228), patch: bytes(232, PATCH_MAX), compat: u32(360), fx: bytes(512, 512),
});
/** `value`/`index`: the first changed 8-byte words of the window; `hash` covers all of them. errorCode and cr2 count for #PF only. */
export const RESULT = struct(1024, {
  trap: u32(0), errorCode: u32(4), cr2: u64(8), gpr: bytes(16, 128), rip: u64(144), rflags: u64(152), nrChanges: u32(160), hash: u32(164),
  value: bytes(168, 8 * CHANGES_MAX), index: bytes(392, 2 * CHANGES_MAX), fx: bytes(512, 512),
});
/** FXSAVE64 image, SDM Vol. 1 table 10-2. */
export const FX = { fcw: 0, fsw: 2, ftw: 4, fop: 6, fip: 8, fdp: 16, mxcsr: 24, mxcsrMask: 28, st: 32, xmm: 160, bytes: 416 } as const;

/** What the manual leaves open after a case; filled by the generator, used by the comparison. */
export interface Leeway {
  /** RFLAGS bits that are undefined */
  flags: number;
  /** the same when an instruction before the last has faulted */
  flagsAtFault: number;
  /** x87 status word bits that are undefined */
  fsw: number;
  /** general registers whose value is undefined, a bit each */
  gprs: number;
  /** the same when a fault has cut the instruction short */
  gprsAtFault: number;
  /** general registers whose upper half is the processor's affair */
  gprsLow: number;
  /** the window's contents are not compared (stores of x87 instruction pointers) */
  memory: boolean;
  /** the window's contents are compared after a fault, too; the fault's address is compared */
  memoryAtFault: boolean; cr2: boolean;
  /** x87 results may differ by this many units in the last place */
  ulps: number;
}

/** `n` cases in the harness's own form, with one window for all. */
export class Batch {
  readonly nrCases: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly dv: DataView;
  readonly leeway: Leeway[] = [];
  /** Name of the (last) form of each case, for reports and counts. */
  readonly names: string[] = [];
  constructor(nrCases: number) {
    this.nrCases = nrCases;
    this.bytes = new Uint8Array(HEADER.sizeof + nrCases * CASE.sizeof);
    this.dv = new DataView(this.bytes.buffer);
    HEADER.magic.set(this.dv, 0, MAGIC);
    HEADER.nrCases.set(this.dv, 0, nrCases);
  }
  get window(): Uint8Array { return this.bytes.subarray(HEADER.window.at, HEADER.window.at + WINDOW_BYTES); }
  /** Byte offset of case i. */
  at(i: number): number { return HEADER.sizeof + i * CASE.sizeof; }
  code(i: number): Uint8Array {
    const at = this.at(i) + CASE.code.at;
    return this.bytes.subarray(at, at + CASE.codeLen.get(this.dv, this.at(i)));
  }
  /** Some of the cases as a batch of their own, for minimising. */
  pick(...list: number[]): Batch {
    const b = new Batch(list.length);
    b.window.set(this.window);
    for (const [k, i] of list.entries()) {
      b.bytes.set(this.bytes.subarray(this.at(i), this.at(i) + CASE.sizeof), b.at(k));
      b.leeway.push({ ...this.leeway[i]! });
      b.names.push(this.names[i]!);
    }
    return b;
  }
}

/** Something that executes cases: this machine's processor, or one of our engines. Returns nrCases × RESULT. */
export interface Subject {
  readonly name: string;
  /** The processor's maker, where it is a processor. */
  readonly vendor?: string;
  run(batch: Batch): Promise<Uint8Array<ArrayBuffer>>;
  close(): void;
}

/** Record in `results` what changed in the window since `was`. The same sum as in native.c. */
export function storeChanges(results: DataView, at: number, was: Uint32Array, now: Uint32Array): void {
  let n = 0, h = 0x811c9dc5;
  for (let i = 0; i < WINDOW_BYTES / 8; i++) {
    const lo = now[2 * i]!, hi = now[2 * i + 1]!;
    if (lo === was[2 * i] && hi === was[2 * i + 1]) continue;
    if (n < CHANGES_MAX) {
      results.setUint32(at + RESULT.value.at + 8 * n, lo, true);
      results.setUint32(at + RESULT.value.at + 8 * n + 4, hi, true);
      results.setUint16(at + RESULT.index.at + 2 * n, i, true);
    }
    h = Math.imul(h ^ i, 0x01000193); h = Math.imul(h ^ lo, 0x01000193); h = Math.imul(h ^ hi, 0x01000193);
    n++;
  }
  RESULT.nrChanges.set(results, at, n);
  RESULT.hash.set(results, at, h >>> 0);
}
