/** The tree, and transactions on it. Nodes never change: a change puts another node in the place, so two views compare by identity. */
import { SPECIAL_PATHS } from "./path.ts";
import type { Perms } from "./perms.ts";

export type Node = {
  readonly value: Uint8Array;
  readonly perms: Perms;
  /** names, in the order of their creation */
  readonly children: ReadonlySet<string>;
  /** number of the change that made this node; DIRECTORY_PART tells clients by it that a list has changed under them */
  readonly generation: number;
};
export type NodeParts = Omit<Node, "generation">;

/** A path that changed, for the watches. */
export type Change = {
  readonly path: string;
  /** only watches on this very path: a descendant of what was removed */
  readonly exact: boolean;
  /** a watcher must have read access by one of these, or by the parent's when the change is told */
  readonly readers: readonly Perms[];
};

/** The tree as it is, or as a transaction sees it. */
export interface View {
  get(path: string): Node | undefined;
  put(path: string, parts: NodeParts): void;
  delete(path: string): void;
  /** Nodes that the domain owns. */
  nrOwned(domid: number): number;
  changed(change: Change): void;
}

const NO_BYTES = new Uint8Array(0);
const DOM0_ONLY: Perms = [{ domid: 0, read: false, write: false }];

export class Tree implements View {
  #nodes = new Map<string, Node>();
  #generation = 0;
  #nrOwned = new Map<number, number>();
  #changes: Change[] = [];

  constructor() {
    for (const path of ["/", ...SPECIAL_PATHS]) this.put(path, { value: NO_BYTES, perms: DOM0_ONLY, children: new Set() });
    this.#nrOwned.clear();
  }
  get(path: string): Node | undefined {
    return this.#nodes.get(path);
  }
  put(path: string, parts: NodeParts): void {
    const node = { ...parts, generation: this.nextGeneration() };
    this.#count(this.#nodes.get(path), -1);
    this.#nodes.set(path, node);
    this.#count(node, 1);
  }
  delete(path: string): void {
    this.#count(this.#nodes.get(path), -1);
    this.#nodes.delete(path);
  }
  nextGeneration(): number {
    return ++this.#generation;
  }
  #count(node: Node | undefined, by: 1 | -1): void {
    if (!node) return;
    const domid = node.perms[0].domid, nr = (this.#nrOwned.get(domid) ?? 0) + by;
    if (nr) this.#nrOwned.set(domid, nr);
    else this.#nrOwned.delete(domid);
  }
  nrOwned(domid: number): number {
    return this.#nrOwned.get(domid) ?? 0;
  }
  /** The domain is no more: what it owned is dom0's, what it was allowed it is not. Its number may come again. */
  forgetDomain(domid: number): void {
    for (const [path, node] of this.#nodes) {
      if (!node.perms.some((p) => p.domid === domid)) continue;
      const [owner, ...others] = node.perms;
      this.put(path, { ...node, perms: [owner.domid === domid ? { ...owner, domid: 0 } : owner, ...others.filter((p) => p.domid !== domid)] });
    }
  }
  changed(change: Change): void {
    this.#changes.push(change);
  }
  /** The changes since the last call. */
  takeChanges(): Change[] {
    const taken = this.#changes;
    this.#changes = [];
    return taken;
  }
  get nrNodes(): number {
    return this.#nodes.size;
  }
}

/** Reads what was at its first look, writes to itself; commits when everything it looked at is still the same. */
export class Transaction implements View {
  readonly #tree: Tree;
  readonly #seen = new Map<string, Node | undefined>();
  readonly #written = new Map<string, Node | undefined>();
  readonly #changes = new Map<string, Change>();
  readonly #nrOwned = new Map<number, number>();
  constructor(tree: Tree) {
    this.#tree = tree;
  }
  /** Paths looked at. */
  get nrSeen(): number {
    return this.#seen.size;
  }
  get(path: string): Node | undefined {
    if (this.#written.has(path)) return this.#written.get(path);
    if (!this.#seen.has(path)) this.#seen.set(path, this.#tree.get(path));
    return this.#seen.get(path);
  }
  put(path: string, parts: NodeParts): void {
    this.#count(this.get(path), -1);
    const node = { ...parts, generation: this.#tree.nextGeneration() };
    this.#written.set(path, node);
    this.#count(node, 1);
  }
  delete(path: string): void {
    this.#count(this.get(path), -1);
    this.#written.set(path, undefined);
  }
  #count(node: Node | undefined, by: 1 | -1): void {
    if (node) this.#nrOwned.set(node.perms[0].domid, (this.#nrOwned.get(node.perms[0].domid) ?? 0) + by);
  }
  nrOwned(domid: number): number {
    return this.#tree.nrOwned(domid) + (this.#nrOwned.get(domid) ?? 0);
  }
  changed(change: Change): void {
    const last = this.#changes.get(change.path);
    this.#changes.set(change.path, last ? { path: change.path, exact: last.exact && change.exact, readers: [...last.readers, ...change.readers] } : change);
  }
  /** Take what was written into the tree. @returns false when another has changed what was seen; nothing is taken then */
  commit(): boolean {
    for (const [path, node] of this.#seen) if (this.#tree.get(path) !== node) return false;
    for (const [path, node] of this.#written) {
      if (node) this.#tree.put(path, node);
      else if (this.#tree.get(path)) this.#tree.delete(path);
    }
    for (const change of this.#changes.values()) this.#tree.changed(change);
    return true;
  }
}
