/** Which guest has which address: a pool, fixed bindings, and a memory of who had what, so that a guest gets its address back. */
import { macText } from "../address.ts";
import { formatIpv4 } from "./address.ts";

/** A lease as others may see and keep it. */
export type Lease = {
  readonly mac: string;
  readonly address: string;
  readonly hostname: string | null;
  /** of the router's clock; infinite for bindings */
  readonly expiresMs: number;
};
/** An address that belongs to a MAC whatever happens; it may lie outside the pool but not outside the subnet. */
export type Binding = { readonly mac: number; readonly address: number; readonly hostname: string | null };

type Held = { mac: number; address: number; hostname: string | null; state: "offered" | "bound" | "free" | "declined"; untilMs: number };

/** An offer is kept this long for its guest; addresses somebody else was found at rest this long. */
const OFFER_MS = 10_000, DECLINED_MS = 600_000;

/** Leases by MAC and by address. No more than the pool and the bindings hold is ever remembered. */
export class Leases {
  readonly #first: number;
  readonly #last: number;
  readonly #bindings: ReadonlyMap<number, Binding>;
  readonly #boundAddresses: ReadonlySet<number>;
  readonly #nowMs: () => number;
  readonly #isTaken: (address: number, mac: number) => boolean;
  readonly #byMac = new Map<number, Held>();
  readonly #byAddress = new Map<number, Held>();
  readonly #byName = new Map<string, Held>();

  /** @param isTaken whether somebody else than `mac` was seen with `address` though nobody leased it to him */
  constructor(first: number, last: number, bindings: readonly Binding[], nowMs: () => number, isTaken: (address: number, mac: number) => boolean) {
    this.#first = first;
    this.#last = last;
    this.#bindings = new Map(bindings.map((b) => [b.mac, b]));
    this.#boundAddresses = new Set(bindings.map((b) => b.address));
    this.#nowMs = nowMs;
    this.#isTaken = isTaken;
    for (const b of bindings) this.#name(this.#hold(b.mac, b.address), b.hostname);
  }
  #hold(mac: number, address: number): Held {
    const old = this.#byMac.get(mac), there = this.#byAddress.get(address);
    if (old && old === there) return old;
    if (old) this.#forget(old);
    if (there) this.#forget(there);
    const held: Held = { mac, address, hostname: null, state: "free", untilMs: 0 };
    this.#byMac.set(mac, held);
    this.#byAddress.set(address, held);
    return held;
  }
  #forget(held: Held): void {
    if (this.#byMac.get(held.mac) === held) this.#byMac.delete(held.mac);
    if (this.#byAddress.get(held.address) === held) this.#byAddress.delete(held.address);
    if (held.hostname && this.#byName.get(held.hostname) === held) this.#byName.delete(held.hostname);
  }
  /** A name belongs to who had it first and still has it. */
  #name(held: Held, hostname: string | null): void {
    if (hostname === null || hostname === held.hostname) return;
    const owner = this.#byName.get(hostname);
    if (owner && owner !== held && this.#isLive(owner)) return;
    if (held.hostname && this.#byName.get(held.hostname) === held) this.#byName.delete(held.hostname);
    if (owner) owner.hostname = null;
    held.hostname = hostname;
    this.#byName.set(hostname, held);
  }
  #isLive(held: Held): boolean {
    return (held.state !== "free" && held.untilMs > this.#nowMs()) || this.#bindings.has(held.mac);
  }
  #isUsable(address: number, mac: number): boolean {
    if (address < this.#first || address > this.#last || this.#boundAddresses.has(address)) return false;
    const held = this.#byAddress.get(address);
    return (!held || held.mac === mac && held.state !== "declined" || !this.#isLive(held)) && !this.#isTaken(address, mac);
  }

  /** The address for a guest that asks, kept for it for a short while. @param wished what it would like, 0: anything @returns null when the pool is empty */
  offer(mac: number, wished: number): number | null {
    const binding = this.#bindings.get(mac);
    if (binding) return binding.address;
    const own = this.#byMac.get(mac);
    let address = own && this.#isUsable(own.address, mac) ? own.address : wished !== 0 && this.#isUsable(wished, mac) ? wished : null;
    if (address === null) {
      // An address nobody had comes first, then the one that was given up longest ago.
      let oldest: Held | null = null;
      for (let a = this.#first; a <= this.#last && address === null; a++) {
        const held = this.#byAddress.get(a);
        if (!this.#isUsable(a, mac)) continue;
        if (!held) address = a;
        else if (!oldest || held.untilMs < oldest.untilMs) oldest = held;
      }
      address ??= oldest?.address ?? null;
    }
    if (address === null) return null;
    const held = this.#hold(mac, address);
    if (held.state === "bound" && this.#isLive(held)) return address;
    held.state = "offered";
    held.untilMs = this.#nowMs() + OFFER_MS;
    return address;
  }
  /** Give `address` to the guest. @returns whether it may have it */
  bind(mac: number, address: number, hostname: string | null, leaseMs: number): boolean {
    const binding = this.#bindings.get(mac);
    if (binding ? binding.address !== address : !this.#isUsable(address, mac)) return false;
    const held = this.#hold(mac, address);
    held.state = "bound";
    held.untilMs = this.#nowMs() + leaseMs;
    this.#name(held, binding?.hostname ?? hostname);
    return true;
  }
  /** The guest gives its address back; it gets the same one when it comes again. */
  release(mac: number, address: number): void {
    const held = this.#byMac.get(mac);
    if (held?.address !== address || this.#bindings.has(mac)) return;
    held.state = "free";
    held.untilMs = this.#nowMs();
  }
  /** The guest found somebody else at the address. */
  decline(mac: number, address: number): void {
    const held = this.#byMac.get(mac);
    if (held?.address !== address || this.#bindings.has(mac)) return;
    held.state = "declined";
    held.untilMs = this.#nowMs() + DECLINED_MS;
    this.#byMac.delete(mac);
  }
  /** The MAC that `address` is leased or bound to. */
  holderOf(address: number): number | undefined {
    const held = this.#byAddress.get(address);
    return held && held.state === "bound" && held.untilMs > this.#nowMs() ? held.mac : undefined;
  }
  /** The address of a guest by its MAC, also where only a binding says so. */
  addressOf(mac: number): number | null {
    const held = this.#byMac.get(mac);
    return held && this.#isLive(held) ? held.address : null;
  }
  /** @param hostname in lower case */
  addressOfName(hostname: string): number | null {
    const held = this.#byName.get(hostname);
    return held && this.#isLive(held) ? held.address : null;
  }
  nameOf(address: number): string | null {
    const held = this.#byAddress.get(address);
    return held && this.#isLive(held) ? held.hostname : null;
  }
  get nrHeld(): number {
    return this.#byAddress.size;
  }
  /** Leases in force. */
  list(): Lease[] {
    return [...this.#byAddress.values()].filter((h) => h.state === "bound" && this.#isLive(h)).sort((a, b) => a.address - b.address)
      .map((h) => ({
        mac: macText(h.mac), address: formatIpv4(h.address), hostname: h.hostname, expiresMs: this.#bindings.has(h.mac) ? Number.POSITIVE_INFINITY : h.untilMs,
      }));
  }
  /** Take up a lease that an earlier router gave; one that does not fit is left out. */
  restore(mac: number, address: number, hostname: string | null, leaseMs: number): void {
    this.bind(mac, address, hostname, leaseMs);
  }
}
