/** bench/gbench.c: built for both widths, packed into guests' initramfs, its lines read back from a console. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cpio, type CpioEntry } from "../src/builder/cpio.ts";
import { type Images, root } from "../test/guest.ts";
import { compile } from "./programs.ts";

/** The width of a machine and its programs. */
export type Bits = 32 | 64;

/** The folder that every place of one width has: as it stands on the bare processor, as /bench in guests. */
export const benchFolder = (bits: Bits): string => join(root, `var/bench/${bits}`);

/**
 * Build it as its head says. The 32-bit one computes with SSE2: x87 rounds differently, and both v86 and the bare processor are slower at it, so that the
 * two widths would do different work.
 */
export function buildGbench(bits: Bits): string {
  const source = join(root, "bench/gbench.c");
  return compile(join(benchFolder(bits), "gbench"), ["-O2", "-fno-tree-vectorize", "-fno-math-errno", "-static", ...(bits === 32 ? ["-m32", "-msse2", "-mfpmath=sse"] : []), source], [source]);
}
/** The names of its works. */
export const gbenchWorks = (): string[] => execFileSync(buildGbench(64), ["list"], { encoding: "utf8" }).trim().split("\n");

/** One work's end: seconds by the clock of the machine it ran in, and the digest of what it computed or a command's exit code. */
export type GbEnd = { readonly name: string; readonly seconds: number; readonly check: string };
/** Read gbench's lines. */
export const readGb = (text: string): GbEnd[] =>
  [...text.matchAll(/^GB END (\S+) (\d+\.\d+) ([0-9a-f]{8}|rc=\d+) cpu=\d+\.\d+\r?$/gm)].map((m) => ({ name: m[1]!, seconds: Number(m[2]), check: m[3]! }));

/** Digests seen so far. Whoever computes something else computes wrongly, and no figure of his is worth anything. */
export class Digests {
  readonly #seen = new Map<string, { check: string; place: string }>();
  /** @throws when another place had another */
  take(work: string, place: string, check: string): void {
    const first = this.#seen.get(work);
    if (!first) this.#seen.set(work, { check, place });
    else if (first.check !== check) throw new Error(`${work} gives ${check} on ${place}, and gave ${first.check} on ${first.place}`);
  }
}

/** The same initramfs with /bench, and files besides; Linux unpacks archives that follow each other. */
export function withBench({ kernel, ramdisk }: Images, bits: Bits, besides: readonly CpioEntry[] = []): Images {
  const folder = benchFolder(bits), made = `${folder}.cpio`;
  const files = readdirSync(folder).sort().map((name): CpioEntry => ({ kind: "file", path: `bench/${name}`, mode: statSync(join(folder, name)).mode & 0o777, bytes: readFileSync(join(folder, name)) }));
  writeFileSync(made, Buffer.concat([readFileSync(ramdisk), cpio([...files, ...besides])]));
  return { kernel, ramdisk: made };
}
