/** The tree, and transactions on it. Nodes never change: a change puts another node in the place, so two views compare by identity. */
import { childOf, leafOf, parentOf, SPECIAL_PATHS } from "./path.ts";
import type { Perms } from "./perms.ts";

/** A node as it is: never changed, only replaced. */
export type Node = {
  readonly value: Uint8Array;
  readonly perms: Perms;
  /** names, in the order of their creation */
  readonly children: ReadonlySet<string>;
  /** number of the change that made this node; DIRECTORY_PART tells clients by it that a list has changed under them */
  readonly generation: number;
  /** value, permissions and names of children */
  readonly sizeBytes: number;
};
/** What a client decides about a node. */
export type NodeParts = Omit<Node, "generation" | "sizeBytes">;

/** Bytes that a node takes of the quota "node-size", counted as xenstored 4.17 does: a header of 24, permissions of 8. */
export function sizeOf(n: NodeParts): number {
  let size = 24 + n.value.length + 8 * n.perms.length;
  for (const name of n.children) size += name.length + 1;
  return size;
}
/** Bytes that it takes of the quota "memory". */
export const costOf = (path: string, n: Node): number => path.length + n.sizeBytes;

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

/** Remove a node that is there and all below it, and its name from its parent. */
export function removeTree(view: View, path: string): void {
  const parent = parentOf(path), above = parent === undefined ? undefined : view.get(parent), node = view.get(path);
  if (parent === undefined || !above || !node) return;
  const children = new Set(above.children);
  children.delete(leafOf(path));
  view.put(parent, { ...above, children });
  removeBelow(view, path, node, [node.perms, above.perms], false);
}
function removeBelow(view: View, path: string, node: Node, readers: Perms[], exact: boolean): void {
  for (const name of node.children) {
    const below = childOf(path, name), child = view.get(below);
    if (child) removeBelow(view, below, child, [child.perms, node.perms], true);
  }
  view.delete(path);
  view.changed({ path, exact, readers });
}

const NO_BYTES = new Uint8Array(0);
const DOM0_ONLY: Perms = [{ domid: 0, read: false, write: false }];

/** All nodes, by their paths, with what each domain owns. */
export class Tree implements View {
  #nodes = new Map<string, Node>();
  #generation = 0;
  #owned = new Map<number, { nrNodes: number; nrBytes: number }>();
  #changes: Change[] = [];

  constructor() {
    for (const path of ["/", ...SPECIAL_PATHS]) this.put(path, { value: NO_BYTES, perms: DOM0_ONLY, children: new Set() });
  }
  get(path: string): Node | undefined {
    return this.#nodes.get(path);
  }
  put(path: string, parts: NodeParts): void {
    const node = { ...parts, generation: this.nextGeneration(), sizeBytes: sizeOf(parts) };
    this.#count(path, this.#nodes.get(path), -1);
    this.#nodes.set(path, node);
    this.#count(path, node, 1);
  }
  delete(path: string): void {
    this.#count(path, this.#nodes.get(path), -1);
    this.#nodes.delete(path);
  }
  nextGeneration(): number {
    return ++this.#generation;
  }
  #count(path: string, node: Node | undefined, by: 1 | -1): void {
    if (!node) return;
    const domid = node.perms[0].domid, owned = this.#owned.get(domid) ?? { nrNodes: 0, nrBytes: 0 };
    owned.nrNodes += by;
    owned.nrBytes += by * costOf(path, node);
    if (owned.nrNodes) this.#owned.set(domid, owned);
    else this.#owned.delete(domid);
  }
  nrOwned(domid: number): number {
    return this.#owned.get(domid)?.nrNodes ?? 0;
  }
  /** Bytes of the nodes that the domain owns, with their paths. */
  bytesOwned(domid: number): number {
    return this.#owned.get(domid)?.nrBytes ?? 0;
  }
  /** The domain is no more: what it owned goes with all below, what it was allowed it is not. Its number may come again. */
  forgetDomain(domid: number): void {
    for (const [path, { perms: [owner] }] of [...this.#nodes]) if (owner.domid === domid && parentOf(path) !== undefined) removeTree(this, path);
    for (const [path, node] of this.#nodes) {
      if (!node.perms.some((p) => p.domid === domid)) continue;
      const [owner, ...others] = node.perms;   // still its own: only the root and the special nodes, which stay
      this.put(path, { ...node, perms: [owner.domid === domid ? { ...owner, domid: 0 } : owner, ...others.filter((p) => p.domid !== domid)] });
    }
  }
  /** What is wrong with the tree, if anything: our fault. */
  flaws(): string[] {
    const found: string[] = [], reached = new Set<string>(SPECIAL_PATHS), owned = new Map<number, [number, number]>();
    const visit = (path: string): void => {
      reached.add(path);
      for (const name of this.#nodes.get(path)?.children ?? []) {
        const below = childOf(path, name);
        if (this.#nodes.has(below)) visit(below);
        else found.push(`${below} is missing`);
      }
    };
    visit("/");
    for (const [path, node] of this.#nodes) {
      if (!reached.has(path)) found.push(`${path} is in no list of children`);
      const domid = node.perms[0].domid, [nrNodes, nrBytes] = owned.get(domid) ?? [0, 0];
      owned.set(domid, [nrNodes + 1, nrBytes + costOf(path, node)]);
    }
    for (const domid of new Set([...owned.keys(), ...this.#owned.keys()])) {
      const [nrNodes, nrBytes] = owned.get(domid) ?? [0, 0];
      if (nrNodes !== this.nrOwned(domid) || nrBytes !== this.bytesOwned(domid)) found.push(`d${domid} owns ${nrNodes} nodes of ${nrBytes} bytes and ${this.nrOwned(domid)} of ${this.bytesOwned(domid)} are counted`);
    }
    return found;
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
  /** bytes of the nodes that it holds, seen and written, with their paths */
  nrBytes = 0;
  /** Paths looked at. */
  get nrSeen(): number {
    return this.#seen.size;
  }
  get(path: string): Node | undefined {
    if (this.#written.has(path)) return this.#written.get(path);
    if (this.#seen.has(path)) return this.#seen.get(path);
    const node = this.#tree.get(path);
    this.#seen.set(path, node);
    this.nrBytes += node ? costOf(path, node) : path.length;
    return node;
  }
  put(path: string, parts: NodeParts): void {
    this.#count(this.get(path), -1);
    const node = { ...parts, generation: this.#tree.nextGeneration(), sizeBytes: sizeOf(parts) };
    this.#write(path, node);
    this.#count(node, 1);
  }
  delete(path: string): void {
    this.#count(this.get(path), -1);
    this.#write(path, undefined);
  }
  #write(path: string, node: Node | undefined): void {
    const before = this.#written.get(path);
    this.nrBytes += (node ? costOf(path, node) : 0) - (before ? costOf(path, before) : 0);
    this.#written.set(path, node);
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
