/**
 * Regions: which blocks become one function, in which order, with which loops. A position is an offset from the start of the region's home
 * page, in linear addresses: what lies outside 0..4095 is on another page, and whoever goes there makes sure that the page is still mapped.
 */
import { ALL, factsOf, liveBefore } from "./analyze.ts";
import type { Insn } from "./decode.ts";

export type Block = {
  readonly start: number; readonly insns: Insn[]; readonly at: number[];
  /** position behind the last instruction */ end: number;
  readonly succ: number[];
  /** control may leave the region here: flags must be whole */ exits: boolean;
  /** may be entered from outside, or by a return or an indirect jump */ isEntry: boolean;
  flagsIn: number;
};
/** What of the flags is wanted before an instruction of a block, where `after` is behind it: all where the page that it ends on must be looked at first, since the region may be left for that. */
export function liveBeforeIn({ at, insns }: Pick<Block, "at" | "insns">, k: number, after: number): number {
  const from = at[k]!, i = insns[k]!;
  return pageOf(from + Math.max(i.len, 1) - 1) === pageOf(k === 0 ? from : from - 1) ? liveBefore(i, after) : ALL;
}
export type Loop = { first: number; last: number; dispatch: boolean; inner: Loop[] };
export type Region = {
  readonly blocks: Block[]; readonly index: Map<number, number>; readonly loops: Loop; readonly nrInsns: number;
  /** Pages it has code from, the home page (0) first: distances in pages. A block's page is the one it starts on. */
  readonly pages: readonly number[];
  /** Blocks that a dispatcher must know: entries, and what is jumped to in the middle of a loop or back by a call. */
  readonly dispatched: ReadonlySet<number>;
  /** Positions behind blocks where an instruction lies that regions leave to the interpreter. */
  readonly stubs: ReadonlySet<number>;
};
export type RegionSource = {
  /** The instruction at a position, if it has been decoded before (or may be, see `isEager`); else null. */
  insnAt(pos: number): Insn | null;
  /** Has the interpreter come here often enough to take it in? */
  isWarm(pos: number): boolean;
  /** Where the indirect call at a position went last, or null. */
  calleeOf(pos: number): number | null;
  /** Does another region begin here? */
  isCovered(pos: number): boolean;
  /** Positions on a page (a distance) that have been reached from elsewhere. */
  entries(page: number): Iterable<number>;
};
/** Above these a region is cut: V8's optimiser takes 1.8 microseconds a byte of a small function, and three times that of a large one. */
export const LIMITS = { blocks: 120, insns: 450, pages: 12 } as const;

export const isTranslatable = (i: Insn): boolean => factsOf(i).isLocal;
export const pageOf = (pos: number): number => Math.floor(pos / 4096);
const targetOf = (i: Insn, pos: number): number => pos + i.len + i.imm;

/** A covered function is taken in again where it is as short as this. */
const SMALL = { insns: 32, blocks: 8 } as const;
/** Is what begins here a short function that calls nothing? */
function isSmallLeaf(pos: number, source: RegionSource): boolean {
  const seen = new Set<number>(), work = [pos];
  let nrBlocks = 0;
  for (let a = work.pop(); a !== undefined; a = work.pop()) {
    if (seen.has(a)) continue;
    if (++nrBlocks > SMALL.blocks) return false;
    for (let at = a; !seen.has(at);) {
      const i = source.insnAt(at);
      if (!i || !isTranslatable(i) || seen.size >= SMALL.insns) return false;
      seen.add(at);
      const { flow } = i.row, next = at + i.len;
      if (flow === "next") { at = next; continue; }
      if (flow === "call" || flow === "callind" || flow === "ind") return false;
      if (flow === "jcc") { if (source.isWarm(targetOf(i, at))) work.push(targetOf(i, at)); if (source.isWarm(next)) work.push(next); }
      if (flow === "jmp") work.push(targetOf(i, at));
      break;
    }
  }
  return true;
}

/** Follow direct control flow from a hot position; where it ends in an indirect jump, go on with what such jumps have reached on its page. */
export function discover(seed: number, source: RegionSource): Region {
  const leaders = new Set<number>(), entries = new Set<number>([seed]), seen = new Set<number>(), pages = new Set<number>([0]), work: number[] = [];
  let nrSeen = 0;
  const room = (page: number): boolean => pages.has(page) || pages.size < LIMITS.pages;
  /** An instruction with all its pages. */
  const take = (pos: number): boolean => {
    const i = source.insnAt(pos), page = pageOf(pos), last = i ? pageOf(pos + Math.max(i.len, 1) - 1) : page;
    if (!i || !room(page) || !room(last) || Math.abs(pos) > 2 ** 30) return false;
    pages.add(page); pages.add(last);
    return true;
  };
  const lead = (pos: number, isEntry = false) => {
    if (!take(pos)) return;
    if (isEntry) entries.add(pos);
    if (!leaders.has(pos) && leaders.size < LIMITS.blocks && nrSeen < LIMITS.insns) { leaders.add(pos); work.push(pos); }
  };
  /** What another region begins with is left to it, unless it is a loop's head that we come from: then the loop is ours too. */
  const mayTake = (pos: number): boolean => pos === seed || leaders.has(pos) || !source.isCovered(pos);
  lead(seed);
  for (let a = work.shift(); a !== undefined; a = work.shift()) {
    for (let pos: number = a; !seen.has(pos) && take(pos);) {
      const i = source.insnAt(pos)!, { flow } = i.row, next = pos + i.len;
      seen.add(pos); nrSeen++;
      if (!isTranslatable(i)) { lead(next, true); break; }
      if (flow === "next") {
        // the next page begins a block: it is to be looked for
        if (pageOf(next) !== pageOf(pos)) { lead(next); break; }
        pos = next; continue;
      }
      if (flow === "jcc" || flow === "jmp") { const to = targetOf(i, pos); if ((flow === "jmp" || source.isWarm(to)) && mayTake(to)) lead(to); }
      if (flow === "call") { const to = targetOf(i, pos); if (source.isWarm(to) && (mayTake(to) || isSmallLeaf(to, source))) lead(to); }
      const callee = flow === "callind" ? source.calleeOf(pos) : null;
      if (callee !== null && source.isWarm(callee) && (mayTake(callee) || isSmallLeaf(callee, source))) lead(callee, true);
      if (flow === "ind") for (const to of source.entries(pageOf(pos))) if (source.isWarm(to)) lead(to, true);
      if (flow === "jcc" && source.isWarm(next) && mayTake(next)) lead(next);
      if ((flow === "call" || flow === "callind") && source.isWarm(next) && mayTake(next)) lead(next, true);
      break;
    }
  }
  return build(leaders, entries, source);
}

function build(leaders: ReadonlySet<number>, entries: ReadonlySet<number>, source: RegionSource): Region {
  const order = [...leaders].filter(a => isTranslatable(source.insnAt(a)!)).sort((x, y) => x - y), index = new Map(order.map((a, n) => [a, n])), pages = new Set<number>([0]);
  const stubs = new Set<number>();
  let nrInsns = 0;
  const blocks = order.map((start, n): Block => {
    const b: Block = { start, insns: [], at: [], end: start, succ: [], exits: false, isEntry: entries.has(start), flagsIn: 0 };
    const to = (a: number) => {
      const s = index.get(a);
      if (s === undefined) { b.exits = true; return; }
      b.succ.push(s);
      if (s <= n || pageOf(a) !== pageOf(start)) b.exits = true;       // the budget may be spent, the page gone
    };
    for (let pos = start; ;) {
      const i = source.insnAt(pos);
      if (!i || !isTranslatable(i) || pageOf(pos) !== pageOf(start)) { if (i && !isTranslatable(i)) stubs.add(pos); b.exits = true; break; }
      const { flow } = i.row, at = pos;
      b.insns.push(i); b.at.push(pos); nrInsns++;
      pages.add(pageOf(pos)); pages.add(pageOf(pos + Math.max(i.len, 1) - 1));
      pos += i.len; b.end = pos;
      if (flow === "next") { if (index.has(pos)) { to(pos); break; } continue; }
      if (flow === "jcc") { to(targetOf(i, at)); to(pos); } else if (flow === "jmp" || flow === "call") to(targetOf(i, at)); else b.exits = true;
      break;
    }
    return b;
  });
  // budget exits leave at a loop's head: it must be a way in again
  blocks.forEach((b, n) => { for (const s of b.succ) if (s <= n) blocks[s]!.isEntry = true; });
  liveness(blocks);
  const dispatched = new Set<number>();
  return { blocks, index, loops: loopsOf(blocks, dispatched), dispatched, nrInsns, stubs, pages: [0, ...[...pages].filter(p => p !== 0).sort((x, y) => x - y)] };
}

function liveness(blocks: Block[]): void {
  for (let changed = true; changed;) {
    changed = false;
    for (let n = blocks.length - 1; n >= 0; n--) {
      const b = blocks[n]!;
      let live = b.exits ? ALL : 0;
      for (const s of b.succ) live |= blocks[s]!.flagsIn;
      for (let k = b.insns.length - 1; k >= 0; k--) live = liveBeforeIn(b, k, live);
      if (live !== b.flagsIn) { b.flagsIn = live; changed = true; }
    }
  }
}

const isCall = (b: Block): boolean => b.insns.at(-1)?.row.flow === "call";
/** Backward edges in address order make intervals; overlapping ones are widened until they nest. A call backwards is no loop: it goes by the dispatcher. */
function loopsOf(blocks: Block[], dispatched: Set<number>): Loop {
  const ends = new Map<number, number>();
  blocks.forEach((b, n) => { if (!isCall(b)) for (const s of b.succ) if (s <= n) ends.set(s, Math.max(ends.get(s) ?? -1, n)); });
  for (let changed = true; changed;) {
    changed = false;
    for (const [a, ae] of ends) for (const [b, be] of ends) if (a < b && b <= ae && be > ae) { ends.set(a, be); changed = true; }
  }
  const root: Loop = { first: 0, last: blocks.length - 1, dispatch: true, inner: [] }, stack = [root];
  for (const first of [...ends.keys()].sort((x, y) => x - y)) {
    const l: Loop = { first, last: ends.get(first)!, dispatch: false, inner: [] };
    while (first > stack[stack.length - 1]!.last) stack.pop();
    for (let n = first + 1; n <= l.last; n++) if (blocks[n]!.isEntry) l.dispatch = true;
    blocks.forEach((b, n) => { for (const s of b.succ) if (s > first && s <= l.last && (n < first || n > l.last || s <= n && isCall(b))) { l.dispatch = true; dispatched.add(s); } });
    stack[stack.length - 1]!.inner.push(l); stack.push(l);
  }
  blocks.forEach((b, n) => { if (b.isEntry) dispatched.add(n); for (const s of b.succ) if (s <= n) dispatched.add(s); });
  return root;
}
