/** Who lives where: addresses of both families, and the stations that spoke with them. */
import type { Address } from "./address.ts";

/** All of a cable, and of one station: an IPv6 guest may have as many addresses as it can invent. */
const NEIGHBOURS_MAX = 4096, PER_STATION_MAX = 256;

/** An address, who used it last, and when another station last said that it has it. */
export type Neighbour = { readonly address: Address; readonly mac: number; seenMs: number; doubtedMs: number };

/** Bounded: of a station that has too many addresses the first one goes; where all together are too many, the first of the station that has most: a flood drives out its own, and not who has few. */
export class Neighbours {
  readonly #byAddress = new Map<Address, Neighbour>();
  readonly #byMac = new Map<number, Set<Neighbour>>();

  get size(): number {
    return this.#byAddress.size;
  }
  get(address: Address): Neighbour | undefined {
    return this.#byAddress.get(address);
  }
  /** Was the station seen, with any address? */
  has(mac: number): boolean {
    return this.#byMac.has(mac);
  }
  /** `mac` speaks with `address`. */
  note(address: Address, mac: number, nowMs: number): void {
    const known = this.#byAddress.get(address);
    if (known?.mac === mac) {
      known.seenMs = nowMs;
      return;
    }
    if (known) this.delete(address);
    let own = this.#byMac.get(mac);
    if (own && own.size >= PER_STATION_MAX) this.delete(first(own).address);
    else if (this.#byAddress.size >= NEIGHBOURS_MAX) this.delete(first(this.#largest()).address);
    own = this.#byMac.get(mac);
    if (!own) this.#byMac.set(mac, own = new Set());
    const neighbour: Neighbour = { address, mac, seenMs: nowMs, doubtedMs: Number.NEGATIVE_INFINITY };
    own.add(neighbour);
    this.#byAddress.set(address, neighbour);
  }
  #largest(): Set<Neighbour> {
    let most = first(this.#byMac.values());
    for (const own of this.#byMac.values()) if (own.size > most.size) most = own;
    return most;
  }
  delete(address: Address): void {
    const known = this.#byAddress.get(address), own = known && this.#byMac.get(known.mac);
    if (!known || !own) return;
    this.#byAddress.delete(address);
    own.delete(known);
    if (own.size === 0) this.#byMac.delete(known.mac);
  }
  /** What a station was seen with, the latest first. */
  of(mac: number): Address[] {
    return [...this.#byMac.get(mac) ?? []].sort((a, b) => b.seenMs - a.seenMs).map((n) => n.address);
  }
  clear(): void {
    this.#byAddress.clear();
    this.#byMac.clear();
  }
}
const first = <T>(all: Iterable<T>): T => all[Symbol.iterator]().next().value as T;
