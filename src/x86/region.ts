/** Regions: which blocks of a page become one function, in which order, with which loops. Offsets are in the page. */
import { ALL, factsOf, liveBefore } from "./analyze.ts";
import type { Insn } from "./decode.ts";

export type Block = {
  readonly start: number; readonly insns: Insn[]; readonly offs: number[];
  /** offset behind the last instruction */ end: number;
  readonly succ: number[];
  /** control may leave the region here: flags must be whole */ exits: boolean;
  /** may be entered from outside: the interpreter, a return, an indirect jump */ isEntry: boolean;
  flagsIn: number;
};
export type Loop = { first: number; last: number; dispatch: boolean; inner: Loop[] };
export type Region = { readonly blocks: Block[]; readonly index: Map<number, number>; readonly loops: Loop; readonly nrInsns: number };
export type PageCode = {
  /** The instruction at an offset that has been decoded before, or null. */
  insnAt(off: number): Insn | null;
  /** Offsets that have been reached from elsewhere. */
  readonly entries: Iterable<number>;
};

export const isTranslatable = (i: Insn): boolean => factsOf(i).isLocal;
const targetOf = (i: Insn, off: number): number => off + i.len + i.imm;

/** Follow direct control flow inside the page from the hot offsets, the latest first. */
export function discover(hot: readonly number[], page: PageCode, maxBlocks: number): Region {
  const leaders = new Set<number>(), entries = new Set<number>(hot), work: number[] = [], seen = new Set<number>();
  const lead = (a: number, isEntry = false) => {
    if (a < 0 || a > 4095 || !page.insnAt(a)) return;
    if (isEntry) entries.add(a);
    if (!leaders.has(a) && leaders.size < maxBlocks) { leaders.add(a); work.push(a); }
  };
  for (const a of page.entries) entries.add(a);
  for (const a of hot) lead(a);
  for (let a = work.shift(); a !== undefined; a = work.shift()) {
    for (let off: number = a; off < 4096 && !seen.has(off);) {
      const i = page.insnAt(off);
      if (!i) break;
      seen.add(off);
      const { flow } = i.row, next = off + i.len;
      if (!isTranslatable(i)) { lead(next, true); break; }
      if (flow === "next") { off = next; continue; }
      if (flow === "jcc" || flow === "jmp" || flow === "call") lead(targetOf(i, off), flow === "call");
      if (flow === "jcc") lead(next);
      if (flow === "call" || flow === "callind") lead(next, true);
      break;
    }
  }
  const order = [...leaders].filter(a => isTranslatable(page.insnAt(a)!)).sort((x, y) => x - y), index = new Map(order.map((a, n) => [a, n]));
  let nrInsns = 0;
  const blocks = order.map((start, n): Block => {
    const b: Block = { start, insns: [], offs: [], end: start, succ: [], exits: false, isEntry: entries.has(start), flagsIn: 0 };
    const to = (a: number) => {
      const s = index.get(a);
      if (s === undefined) { b.exits = true; return; }
      b.succ.push(s);
      if (s <= n) b.exits = true;                        // a backward edge may find the budget spent
    };
    for (let off = start; ;) {
      const i = page.insnAt(off);
      if (!i || !isTranslatable(i)) { b.exits = true; break; }
      b.insns.push(i); b.offs.push(off); nrInsns++;
      const { flow } = i.row, at = off;
      off += i.len; b.end = off;
      if (flow === "next") { if (off < 4096 && index.has(off)) { to(off); break; } if (off > 4095) { b.exits = true; break; } continue; }
      if (flow === "jcc") { to(targetOf(i, at)); to(off); } else if (flow === "jmp" || flow === "call") to(targetOf(i, at)); else b.exits = true;
      break;
    }
    return b;
  });
  // budget exits leave at a loop's head: it must be a way in again
  blocks.forEach((b, n) => { for (const s of b.succ) if (s <= n) blocks[s]!.isEntry = true; });
  liveness(blocks);
  return { blocks, index, loops: loopsOf(blocks), nrInsns };
}

function liveness(blocks: Block[]): void {
  for (let changed = true; changed;) {
    changed = false;
    for (let n = blocks.length - 1; n >= 0; n--) {
      const b = blocks[n]!;
      let live = b.exits ? ALL : 0;
      for (const s of b.succ) live |= blocks[s]!.flagsIn;
      for (let k = b.insns.length - 1; k >= 0; k--) live = liveBefore(b.insns[k]!, live);
      if (live !== b.flagsIn) { b.flagsIn = live; changed = true; }
    }
  }
}

/** Backward edges in address order make intervals; overlapping ones are widened until they nest. */
function loopsOf(blocks: Block[]): Loop {
  const ends = new Map<number, number>();
  blocks.forEach((b, n) => { for (const s of b.succ) if (s <= n) ends.set(s, Math.max(ends.get(s) ?? -1, n)); });
  for (let changed = true; changed;) {
    changed = false;
    for (const [a, ae] of ends) for (const [b, be] of ends) if (a < b && b <= ae && be > ae) { ends.set(a, be); changed = true; }
  }
  const root: Loop = { first: 0, last: blocks.length - 1, dispatch: true, inner: [] }, stack = [root];
  for (const first of [...ends.keys()].sort((x, y) => x - y)) {
    const l: Loop = { first, last: ends.get(first)!, dispatch: false, inner: [] };
    while (first > stack[stack.length - 1]!.last) stack.pop();
    for (let n = first + 1; n <= l.last; n++) if (blocks[n]!.isEntry) l.dispatch = true;
    blocks.forEach((b, n) => { if (n < first || n > l.last) for (const s of b.succ) if (s > first && s <= l.last) l.dispatch = true; });
    stack[stack.length - 1]!.inner.push(l); stack.push(l);
  }
  return root;
}
