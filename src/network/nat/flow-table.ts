/** Flows by their four numbers: a hash table with chains, so that a packet finds its flow without an object or string being made. */
import type { Address } from "./address.ts";

/** Both ends of a flow: the guest's, and the one that the guest believes to be speaking with. */
export type Flow<T> = {
  readonly guestAddress: Address;
  readonly guestPort: number;
  readonly remoteAddress: Address;
  readonly remotePort: number;
  /** the table's: the next one with the same hash */
  chained: T | null;
};

function mixed(h: number, word: number, seed: number): number {
  h = Math.imul(h ^ word, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 15), 0x85ebca6b) ^ seed;
  return h ^ (h >>> 13);
}
const halves = new BigUint64Array(2), words = new Uint32Array(halves.buffer);
/** An IPv6 address with all its bits: guests choose peers, and those that share some bits are at hand. */
function mixedAddress(h: number, address: Address, seed: number): number {
  if (typeof address === "number") return mixed(h, address, seed);
  halves[0] = address;
  halves[1] = address >> 64n;
  return mixed(mixed(mixed(mixed(h, words[0]!, seed), words[1]!, seed), words[2]!, seed), words[3]!, seed);
}

/** Finds, adds and deletes in constant time; grows with its flows. */
export class FlowTable<T extends Flow<T>> {
  #heads: (T | null)[] = new Array(256).fill(null);
  /** guests choose their ports and peers; they shall not choose their chains */
  readonly #seed: number;
  size = 0;

  constructor(seed: number) {
    this.#seed = seed | 0;
  }
  #hash(guestAddress: Address, guestPort: number, remoteAddress: Address, remotePort: number): number {
    const seed = this.#seed;
    return mixed(mixedAddress(mixedAddress(seed, guestAddress, seed), remoteAddress, seed), (guestPort << 16) | remotePort, seed) & (this.#heads.length - 1);
  }
  get(guestAddress: Address, guestPort: number, remoteAddress: Address, remotePort: number): T | null {
    let flow: T | null = this.#heads[this.#hash(guestAddress, guestPort, remoteAddress, remotePort)] ?? null;
    for (; flow; flow = flow.chained) {
      if (flow.guestAddress === guestAddress && flow.guestPort === guestPort && flow.remoteAddress === remoteAddress && flow.remotePort === remotePort) return flow;
    }
    return null;
  }
  /** Its four numbers must not be in the table yet. */
  add(flow: T): void {
    if (this.size++ >= this.#heads.length) this.#grow();
    this.#link(flow);
  }
  #link(flow: T): void {
    const at = this.#hash(flow.guestAddress, flow.guestPort, flow.remoteAddress, flow.remotePort);
    flow.chained = this.#heads[at] ?? null;
    this.#heads[at] = flow;
  }
  #grow(): void {
    const flows = [...this.values()];
    this.#heads = new Array(this.#heads.length * 2).fill(null);
    for (const flow of flows) this.#link(flow);
  }
  delete(flow: T): void {
    const at = this.#hash(flow.guestAddress, flow.guestPort, flow.remoteAddress, flow.remotePort);
    let before: T | null = null;
    for (let f: T | null = this.#heads[at] ?? null; f; before = f, f = f.chained) {
      if (f !== flow) continue;
      if (before) before.chained = f.chained;
      else this.#heads[at] = f.chained;
      f.chained = null;
      this.size--;
      return;
    }
  }
  *values(): Generator<T> {
    for (const head of this.#heads) {
      for (let flow: T | null = head; flow; ) {
        const next: T | null = flow.chained;
        yield flow;
        flow = next;
      }
    }
  }
}
