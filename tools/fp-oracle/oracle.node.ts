/** Builds and drives oracle.c, and makes seeded operands for it. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { zero, type Format } from "../../src/x86/softfloat.ts";

/** Layout of a record: see oracle.c. */
export const REC = { sizeof: 512, kind: 0, length: 1, insn: 2, rflags: 16, mxcsr: 24, rax: 32, rcx: 40, mm0: 48, mm1: 56, state: 64, xmm0: 64, xmm1: 80, mem: 192 } as const;
export const SIGFPE = 8, SIGILL = 4;

let program: string | undefined;
/** Build oracle.c, once a process. */
function build(): string {
  if (process.arch !== "x64") throw new Error("The floating-point oracle is the host's processor: these tests need an x86-64 machine");
  const dir = mkdtempSync(join(tmpdir(), "fp-oracle-")), source = join(dirname(fileURLToPath(import.meta.url)), "oracle.c"), out = join(dir, "oracle");
  process.on("exit", () => rmSync(dir, { recursive: true }));
  const gcc = spawnSync("gcc", ["-O1", "-mno-red-zone", "-o", out, source], { encoding: "utf8" });
  if (gcc.error) throw new Error(`The floating-point tests compare with the host's processor and need gcc, which did not start: ${gcc.error.message}`);
  if (gcc.status !== 0) throw new Error(`gcc could not build the floating-point oracle: ${gcc.stderr}`);
  return out;
}
/** Run all records on this machine's processor. */
export function askProcessor(records: Uint8Array): Uint8Array {
  const r = spawnSync(program ??= build(), { input: records, maxBuffer: records.length + 4096 });
  if (r.status !== 0 || r.stdout.length !== records.length) throw new Error(`The floating-point oracle ended early (status ${r.status}, signal ${r.signal})`);
  return new Uint8Array(r.stdout.buffer, r.stdout.byteOffset, r.stdout.length);
}

/** xorshift32, seeded. */
export class Dice {
  private s: number;
  constructor(seed: number) { this.s = seed | 0 || 1; }
  u32(): number { let s = this.s; s ^= s << 13; s ^= s >>> 17; s ^= s << 5; this.s = s; return s >>> 0; }
  below(n: number): number { return this.u32() % n; }
  u64(): bigint { return BigInt(this.u32()) << 32n | BigInt(this.u32()); }
  pick<T>(list: readonly T[]): T { return list[this.below(list.length)]!; }
}

/** A significand's fraction of `n` bits: often with runs of zeros or ones, to meet ties and carries. */
function fraction(d: Dice, n: number): bigint {
  const mask = (1n << BigInt(n)) - 1n;
  switch (d.below(6)) {
    case 0: return 0n;
    case 1: return mask;
    case 2: return mask << BigInt(d.below(n)) & mask;
    case 3: return BigInt(d.below(16)) << BigInt(d.below(n)) & mask;
    case 4: return mask ^ BigInt(d.below(4));
    default: return d.u64() & mask;
  }
}
/** Bits of a number: special values, denormals, values near 1 (so that sums cancel), integers' neighbourhood, and anything. */
export function operand(d: Dice, f: Format): bigint {
  const top = 2 * f.bias + 1, n = f.explicit ? 63 : f.prec - 1, sign = d.below(2);
  const k = d.below(12);
  const e = k === 0 ? 0 : k === 1 ? top : k === 2 ? 1 + d.below(3) : k === 3 ? top - 1 - d.below(3) : k < 8 ? f.bias - 4 + d.below(12) : k < 10 ? f.bias - 70 + d.below(140) : d.below(top + 1);
  let bits = fraction(d, n);
  if (f.explicit) {
    const integer = e === 0 ? d.below(8) === 0 : d.below(24) !== 0;
    bits |= integer ? 1n << 63n : 0n;
    return bits | BigInt(sign << 15 | e) << 64n;
  }
  return bits | BigInt(e) << BigInt(n) | (sign ? zero(f, 1) : 0n);
}
