/** Neighbour discovery as the router does its part of it (RFC 4861): it answers for its own addresses, hears where guests are, and tells who asks for routers of itself. */
import { macText } from "../address.ts";
import { UNSPECIFIED } from "./address.ts";
import type { Lan } from "./lan.ts";
import { ND, newAdvertisement, readNd } from "./nd-message.ts";
import { isOwn, type Own } from "./own.ts";
import type { Packet } from "./packet.ts";
import type { RouterAdvertiser } from "./router-advertiser.ts";

/** What it is made over. */
export type NeighbourOptions = { readonly lan: Lan; readonly own: Own; readonly mac: number; readonly advertiser: RouterAdvertiser; readonly log: (sentence: string) => void };

/** Takes the guests' messages. */
export class NeighbourDiscovery {
  readonly #o: NeighbourOptions;
  readonly counts = { nrSolicited: 0, nrBad: 0, nrRogue: 0 };

  constructor(options: NeighbourOptions) {
    this.#o = options;
  }
  /** A packet that isNd says is one. */
  receive(p: Packet): void {
    const { lan, own, mac } = this.#o, m = readNd(p);
    if (!m) {
      this.counts.nrBad++;
      return;
    }
    switch (m.type) {
      case ND.neighbourSolicitation:
        if (m.source !== UNSPECIFIED && !lan.learn(m.source, p.mac)) return;
        if (!isOwn(own, m.target) && (m.source === UNSPECIFIED || !lan.isAbsent(m.target, m.source))) return;
        this.counts.nrSolicited++;
        // Who looks whether the address is free has none to be answered at: all are told, and so is it.
        return lan.send(newAdvertisement(m.target, mac, m.source, !isOwn(own, m.target)), "good", null, p.mac);
      case ND.neighbourAdvertisement:
        return lan.confirm(m.target, p.mac);
      case ND.routerSolicitation:
        if (m.source === UNSPECIFIED || lan.learn(m.source, p.mac)) this.#o.advertiser.solicited(m.source, p.mac);
        return;
      default:
        if (this.counts.nrRogue++ < 3) this.#o.log(`${macText(p.mac)} says that it is a router; a vif with ip= in its configuration cannot`);
    }
  }
}
