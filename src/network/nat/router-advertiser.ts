/** Router advertisements (RFC 4861 6.2): guests make their addresses from them (RFC 4862) and learn of the DNS server, the MTU, and whether there is a way out. */
import { ALL_NODES, macOfGroup, UNSPECIFIED } from "./address.ts";
import type { Lan } from "./lan.ts";
import { newRouterAdvertisement } from "./nd-message.ts";
import type { Own6 } from "./own.ts";
import { Throttle } from "./throttle.ts";
import { Timer, type TimerWheel } from "./timers.ts";

/** Between advertisements nobody asked for, the first three apart (RFC 4861 6.2.1, 10); and how often the way out is looked at. */
const INTERVAL_MS = { least: 200_000, most: 600_000, initial: 16_000 } as const, NR_INITIAL = 3, LOOK_MS = 30_000;
/** How long guests believe: in the router and its DNS, and in the prefix. */
const ROUTER_SECONDS = 1800, VALID_SECONDS = 86_400, PREFERRED_SECONDS = 14_400;
/** Answers to one guest: a burst, and then so many a second. */
const BURST = 10, PER_SECOND = 1;

/** What it says, and whence. */
export type AdvertiserOptions = {
  readonly lan: Lan; readonly wheel: TimerWheel; readonly own: Own6; readonly mac: number; readonly mtu: number; readonly domain: string; readonly random: () => number;
  /** whether there is a way out at the moment */
  readonly isRouted: () => boolean;
};

/** Says it now and then, when asked, and when the way out comes or goes. */
export class RouterAdvertiser {
  readonly #o: AdvertiserOptions;
  readonly #throttle = new Throttle(BURST, PER_SECOND);
  readonly #timer = new Timer((nowMs) => this.#look(nowMs));
  #nextMs: number;
  #nrSaid = 0;
  #wasRouted: boolean;
  readonly counts = { nrAsked: 0, nrAnswered: 0, nrUnasked: 0 };

  constructor(options: AdvertiserOptions) {
    this.#o = options;
    this.#wasRouted = options.isRouted();
    this.#nextMs = options.wheel.nowMs() + INTERVAL_MS.initial;
    options.wheel.arm(this.#timer, this.#nextMs);
  }
  /** What the last look found. */
  get isRouted(): boolean {
    return this.#wasRouted;
  }
  #look(nowMs: number): void {
    const { wheel, random } = this.#o, isRouted = this.#o.isRouted();
    if (nowMs >= this.#nextMs || isRouted !== this.#wasRouted) {
      this.#wasRouted = isRouted;
      this.counts.nrUnasked++;
      this.#say(ALL_NODES, macOfGroup(ALL_NODES));
      const { least, most, initial } = INTERVAL_MS;
      this.#nextMs = nowMs + (++this.#nrSaid < NR_INITIAL ? initial : least + (random() >>> 0) % (most - least));
    }
    wheel.arm(this.#timer, Math.min(this.#nextMs, nowMs + LOOK_MS));
  }
  /** A guest asks. Where it has no address yet all are told, but in a frame for its station alone (RFC 6085): the others did not ask. */
  solicited(asker: bigint, mac: number): void {
    const nowMs = this.#o.wheel.nowMs();
    this.counts.nrAsked++;
    if (!this.#throttle.may(mac, nowMs)) return;
    this.counts.nrAnswered++;
    if (this.#o.isRouted() !== this.#wasRouted) this.#look(nowMs);
    this.#say(asker === UNSPECIFIED ? ALL_NODES : asker, mac);
  }
  #say(to: bigint, station: number): void {
    const { own, mac, mtu, domain } = this.#o;
    this.#o.lan.send(newRouterAdvertisement({
      linkLocal: own.linkLocal, mac, mtu, network: own.network, dns: own.gateway, domain, routerSeconds: this.#wasRouted ? ROUTER_SECONDS : 0, dnsSeconds: ROUTER_SECONDS,
      validSeconds: VALID_SECONDS, preferredSeconds: PREFERRED_SECONDS,
    }, to), "good", null, station);
  }
}
