/**
 * A bridge's forwarding table: by VLAN and Ethernet address the port where that address was last seen. Each port may hold so many addresses and no more, so a flood of
 * invented ones fills the flooder's own share. An address that a port's configuration lists is held for that port and cannot be taken by another.
 */
import { macText } from "./address.ts";
import type { NetClock } from "./clock.ts";

/** An address that was silent for so long is forgotten - the ageing time of 802.1Q 8.8.3. */
export const AGEING_MS = 300_000;
/** An address that moved so often in a window stays where it is for as long, and is not heard elsewhere. */
const FLAP = { nrMovesMax: 5, windowMs: 10_000, holdMs: 10_000 } as const;
/** A port that is full looks for aged addresses this often. */
const SWEEP_MS = 1000;

/** What the table asks of a port. */
export interface Station {
  readonly name: string;
  /** the addresses that its configuration lists */
  readonly macs: ReadonlySet<number> | null;
  /** how many learnt addresses it may hold */
  readonly macsMax: number;
  /** kept by the table */
  nrMacs: number;
  sweptMs: number;
}
type Entry<P> = { port: P; seenMs: number; /** listed by the port's configuration: does not age */ isListed: boolean; nrMoves: number; movedMs: number; heldUntilMs: number; isTold: boolean };

/** All VLANs of one bridge. */
export class ForwardingTable<P extends Station> {
  readonly #vlans = new Map<number, Map<number, Entry<P>>>();
  readonly #clock: Pick<NetClock, "nowMs">;
  readonly #tell: (port: P, sentence: string) => void;
  /** @param tell is told of what an administrator should know, with the port it came from; it may be called often */
  constructor(clock: Pick<NetClock, "nowMs">, tell: (port: P, sentence: string) => void) {
    this.#clock = clock;
    this.#tell = tell;
  }
  #entries(vid: number): Map<number, Entry<P>> {
    let entries = this.#vlans.get(vid);
    if (!entries) this.#vlans.set(vid, (entries = new Map()));
    return entries;
  }

  /** The port behind which an address is; null: not known (any more). */
  find(vid: number, mac: number): P | null {
    const entry = this.#vlans.get(vid)?.get(mac);
    return entry && (entry.isListed || this.#clock.nowMs() - entry.seenMs < AGEING_MS) ? entry.port : null;
  }

  /** Hold an address for a port before it has said anything. */
  hold(vid: number, mac: number, port: P): void {
    const entries = this.#entries(vid), entry = entries.get(mac);
    if (entry && entry.port !== port) {
      if (entry.isListed) this.#tell(port, `${macText(mac)} is listed for ${entry.port.name} and ${port.name}; it follows the one that spoke last`);
      else entry.port.nrMacs--;
    }
    entries.set(mac, this.#entry(port, true));
  }
  #entry(port: P, isListed: boolean): Entry<P> {
    return { port, seenMs: this.#clock.nowMs(), isListed, nrMoves: 0, movedMs: -Infinity, heldUntilMs: -Infinity, isTold: false };
  }

  /** A port sent from an address. @returns why the frame is not to go on: the address is `mac` another port's, or it is `flapping` */
  learn(vid: number, mac: number, port: P): "mac" | "flapping" | null {
    const entries = this.#entries(vid), entry = entries.get(mac), nowMs = this.#clock.nowMs(), isListed = port.macs?.has(mac) ?? false;
    if (entry?.port === port) {
      entry.seenMs = nowMs;
      return null;
    }
    if (!entry) {
      if (isListed || this.#hasRoom(port, nowMs)) {
        entries.set(mac, this.#entry(port, isListed));
        if (!isListed) port.nrMacs++;
      }
      return null;
    }
    if (entry.isListed && !isListed) return "mac";
    const isSilent = !entry.isListed && nowMs - entry.seenMs >= AGEING_MS;
    if (!isSilent && !isListed && this.#isFlapping(mac, entry, port, nowMs)) return "flapping";
    if (!isListed && !this.#hasRoom(port, nowMs)) return null;
    if (!entry.isListed) entry.port.nrMacs--;
    if (!isListed) port.nrMacs++;
    entry.port = port;
    entry.seenMs = nowMs;
    entry.isListed = isListed;
    return null;
  }
  #isFlapping(mac: number, entry: Entry<P>, port: P, nowMs: number): boolean {
    if (nowMs < entry.heldUntilMs) return true;
    if (nowMs - entry.movedMs > FLAP.windowMs) {
      entry.movedMs = nowMs;
      entry.nrMoves = 0;
    }
    if (nowMs - entry.seenMs < FLAP.windowMs && !entry.isTold) {
      entry.isTold = true;
      this.#tell(port, `${macText(mac)} is behind ${entry.port.name} and ${port.name}; it follows the one that spoke last`);
    }
    if (++entry.nrMoves <= FLAP.nrMovesMax) return false;
    entry.heldUntilMs = nowMs + FLAP.holdMs;
    entry.movedMs = -Infinity;
    this.#tell(port, `${macText(mac)} moves to and fro between ${entry.port.name} and ${port.name}: two guests have it, or cables make a ring; ${port.name} is not heard with it for 10 s`);
    return true;
  }

  #hasRoom(port: P, nowMs: number): boolean {
    if (port.nrMacs < port.macsMax) return true;
    if (nowMs - port.sweptMs < SWEEP_MS) return false;
    port.sweptMs = nowMs;
    this.#drop((entry) => entry.port === port && !entry.isListed && nowMs - entry.seenMs >= AGEING_MS);
    return port.nrMacs < port.macsMax;
  }
  /** Forget all that is behind a port. */
  forget(port: P): void {
    this.#drop((entry) => entry.port === port);
  }
  #drop(isGone: (entry: Entry<P>) => boolean): void {
    for (const [vid, entries] of this.#vlans) {
      for (const [mac, entry] of entries) {
        if (!isGone(entry)) continue;
        entries.delete(mac);
        if (!entry.isListed) entry.port.nrMacs--;
      }
      if (entries.size === 0) this.#vlans.delete(vid);
    }
  }
  /** What is known now. */
  *rows(): Generator<{ vid: number; mac: number; port: P; idleMs: number; isListed: boolean }> {
    const nowMs = this.#clock.nowMs();
    for (const [vid, entries] of this.#vlans) {
      for (const [mac, { port, seenMs, isListed }] of entries) if (isListed || nowMs - seenMs < AGEING_MS) yield { vid, mac, port, idleMs: nowMs - seenMs, isListed };
    }
  }
}
