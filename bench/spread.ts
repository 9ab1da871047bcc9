/**
 * Code that is spread: many small functions, each called in its turn, as a kernel's path runs through its own. What a call takes depends on how much code there is: loops say nothing of
 * that. gbench's works are loops but for fork + exec, where much else happens.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { images } from "../test/guest.ts";
import { MEMORY_MIB, startOurs, startPeer } from "./boot.ts";
import { type Bench, Collector, type Effort, type Table } from "./figures.ts";
import { benchFolder, buildGbench, Digests, withBench } from "./gbench.ts";
import { guestPlace, nativePlace, needQemu } from "./places.ts";
import { compile } from "./programs.ts";
import { addRatios, PLACE, RATIO } from "./ratios.ts";

/** Functions in the program, how many of them a row calls, and statements in each. */
const FUNCTIONS = 4096, ROWS = [16, 64, 256, 1024, 4096] as const, STATEMENTS = 6;
/** Calls of a row; once more as many before it, so that hot code is translated. */
const CALLS = 16_000_000, QUICK_CALLS = 4_000_000;

/** The program's text: loads, stores, comparisons and a chain of pointers, in an order that is the same each time. */
function source(): string {
  let seed = 1;
  const below = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  const statements: readonly (() => string)[] = [
    () => `p->a[${below(64)}] += x;`,
    () => `if (p->b[${below(64)}] == ${1_000_000 + below(1000)}) { x = x * 3 + ${below(100)}; p->a[${below(64)}] = x; }`,
    () => `x ^= p->a[${below(64)}] + ${below(1000)};`,
    () => `p->b[${below(64)}] = (int)x & ${below(10_000)};`,
    () => `p = p->next; if (!p) return ${below(100)};`,
  ];
  const functions = Array.from({ length: FUNCTIONS }, (_, i) => `__attribute__((noinline)) static long f${i}(struct s *p, long x) { ${Array.from({ length: STATEMENTS }, () => statements[below(statements.length)]!()).join(" ")} return x; }`);
  return `#include <stdio.h>
#include <stdlib.h>
#include <time.h>
struct s { long a[64]; int b[64]; struct s *next; };
${functions.join("\n")}
static long (*const table[])(struct s *, long) = { ${functions.map((_, i) => `f${i}`).join(", ")} };
static struct s ring[16];
int main(int argc, char **argv) {
  long calls = argc > 1 ? atol(argv[1]) : 1000000, n = argc > 2 ? atol(argv[2]) : 16, x = 1;
  for (int i = 0; i < 16; i++) ring[i].next = &ring[(i + 1) % 16];
  for (int pass = 0; pass < 2; pass++) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long k = 0; k < calls;) for (long i = 0; i < n && k < calls; i++, k++) x = table[i](&ring[i & 15], x);
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (pass) printf("SPREAD %ld %.2f %lx\\n", n, ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / calls, x);
  }
  return 0;
}
`;
}
function build(): void {
  const folder = benchFolder(64), text = join(folder, "..", "spread.c");
  mkdirSync(folder, { recursive: true });
  writeFileSync(text, source());
  compile(join(folder, "spread"), ["-O2", "-static", "-fno-pie", "-no-pie", "-fcf-protection=none", text], [import.meta.filename]);
}

async function run({ rounds, quick, say }: Effort): Promise<Table[]> {
  needQemu();
  buildGbench(64);
  build();
  const files = withBench(images(), 64), found = new Collector(), digests = new Digests(), calls = quick ? QUICK_CALLS : CALLS;
  for (let round = 0; round < rounds; round++) {
    await using native = nativePlace(PLACE.native, 64);
    await using tcg = await guestPlace(PLACE.tcg, 64, startPeer(files, MEMORY_MIB));
    await using ours = await guestPlace(PLACE.domus, 64, startOurs("spread", files, MEMORY_MIB));
    for (const n of ROWS) {
      const row = `${n} functions`;
      for (const place of [native, tcg, ours]) {
        const said = /^SPREAD (\d+) ([\d.]+) ([0-9a-f]+)\r?$/m.exec((await place.run(`spread ${calls} ${n}`)).out);
        if (!said) throw new Error(`spread said nothing on ${place.name}`);
        digests.take(row, place.name, said[3]!);
        found.add(row, place.name, Number(said[2]));
      }
      addRatios(found, row);
      say(`spread: ${row}: ${[PLACE.native, PLACE.tcg, PLACE.domus].map((p) => `${p} ${found.get(row, p).at(-1)!.toFixed(1)} ns`).join(", ")}`);
    }
  }
  return [{
    title: "Spread code, time of a call", unit: `Nanoseconds, by the guest's clock; a call is some 24 instructions. ${calls / 1e6} million calls, after as many.`,
    columns: [PLACE.native, PLACE.tcg, PLACE.domus, RATIO.tcg], rows: found.rows(), digits: 2, notes: [],
  }];
}

export const spread: Bench = { name: "spread", help: "many small functions, each called in its turn: what much code costs", run };
