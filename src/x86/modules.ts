/**
 * Modules of generated code in a pCPU's table: their functions, in order, are in neighbouring slots. Those that the store knows are instantiated once, for as long as something is made of them
 * and some time longer, since code that was overwritten or forgotten often comes back.
 */
import type { CodeStore, Member, NewMember, StoredModule } from "./code-store.ts";

/** `first`: slot of its first function; `keys`: the first key of each; `nrUsed`: for how much its functions are in use, each of them perhaps in several places. */
type Resident = { readonly id: number; readonly first: number; readonly keys: readonly number[]; nrUsed: number };
/** Unused modules that stay. */
const SPARE_MAX = 128;

export class Modules {
  private readonly table: WebAssembly.Table;
  private readonly imports: Record<string, WebAssembly.ImportValue>;
  /** what all pCPUs have, or null */
  readonly store: CodeStore | null;
  private next: number;
  /** gaps among slots that were given back, by their first */
  private gaps: { first: number; size: number }[] = [];
  private readonly byId = new Map<number, Resident>();
  private readonly bySlot = new Map<number, Resident>();
  /** the longest unused first */
  private readonly spare = new Set<Resident>();
  private nrOwn = 0;

  /** @param firstSlot of the table, that may be used */
  constructor(table: WebAssembly.Table, imports: Record<string, WebAssembly.ImportValue>, store: CodeStore | null, firstSlot: number) { this.table = table; this.imports = imports; this.store = store; this.next = firstSlot; }

  /** Slots that follow each other. @returns the first one */
  reserve(size: number): number {
    const gap = this.gaps.find(g => g.size >= size);
    if (gap) {
      const { first } = gap;
      gap.first += size; gap.size -= size;
      if (gap.size === 0) this.gaps.splice(this.gaps.indexOf(gap), 1);
      return first;
    }
    const first = this.next;
    this.next += size;
    if (this.next > this.table.length) this.table.grow(Math.max(4096, this.next - this.table.length));
    return first;
  }
  giveBack(first: number, size: number): void {
    if (size === 0) return;
    const n = this.gaps.findIndex(g => g.first > first), at = n < 0 ? this.gaps.length : n, before = this.gaps[at - 1], after = this.gaps[at], isBehind = before !== undefined && before.first + before.size === first, isBefore = after !== undefined && first + size === after.first;
    const gap = { first: isBehind ? before.first : first, size: size + (isBehind ? before.size : 0) + (isBefore ? after.size : 0) };
    this.gaps.splice(isBehind ? at - 1 : at, (isBehind ? 1 : 0) + (isBefore ? 1 : 0), ...(gap.first + gap.size === this.next ? [] : [gap]));
    if (gap.first + gap.size === this.next) this.next = gap.first;
  }
  private settle(id: number, { wasm, keys }: StoredModule, first: number): Resident {
    const r: Resident = { id, first, keys, nrUsed: 0 };
    new WebAssembly.Instance(new WebAssembly.Module(wasm), { e: { ...this.imports, base: first } });
    this.byId.set(id, r);
    keys.forEach((_, n) => { this.bySlot.set(first + n, r); });
    this.rest(r);
    return r;
  }
  /**
   * Put a new module's functions into slots, and tell everybody of it.
   * @param first of its slots, which are reserved
   * @returns the first
   */
  add(wasm: Uint8Array<ArrayBuffer>, members: readonly NewMember[], first = this.reserve(members.length)): number {
    return this.settle(this.store?.add(wasm, members) || --this.nrOwn, { wasm, keys: members.map(({ keys }) => keys[0]!) }, first).first;
  }
  /** The slot of a function that the store has, or 0 when it has it no more. */
  slotOf({ module, index }: Member): number {
    let r = this.byId.get(module);
    if (!r) {
      const stored = this.store?.module(module);
      if (stored) r = this.settle(module, stored, this.reserve(stored.keys.length));
    }
    if (!r || index >= r.keys.length) return 0;
    if (this.spare.delete(r)) this.spare.add(r);        // it is about to be used
    return r.first + index;
  }
  /** All functions of the module that a slot is of: the first key of each, and its slot. */
  around(slot: number): (readonly [key: number, slot: number])[] { const { first, keys } = this.bySlot.get(slot)!; return keys.map((key, n) => [key, first + n] as const); }
  /** The first key of the function in a slot. */
  keyOf(slot: number): number { const { first, keys } = this.bySlot.get(slot)!; return keys[slot - first]!; }
  /** A function of a module is in use once more. */
  use(slot: number): void { const r = this.bySlot.get(slot)!; if (r.nrUsed++ === 0) this.spare.delete(r); }
  /** And once less. */
  release(slot: number): void { const r = this.bySlot.get(slot)!; if (--r.nrUsed === 0) this.rest(r); }
  private rest(r: Resident): void {
    this.spare.add(r);
    if (this.spare.size <= SPARE_MAX) return;
    const [old] = this.spare;
    this.spare.delete(old!); this.byId.delete(old!.id);
    old!.keys.forEach((_, n) => { this.bySlot.delete(old!.first + n); this.table.set(old!.first + n, null); });
    this.giveBack(old!.first, old!.keys.length);
  }
}
