/** A network device as xenbus knows it: what the front end wrote is read and checked here, rings and events are bound, the cable is plugged in. */
import { suited } from "../../network/offload.ts";
import { connect, type Port } from "../../network/port.ts";
import type { Bind, Doorbell } from "../dom0.ts";
import type { GrantAccess } from "../grants.ts";
import type { BackDriver, FrontKeys } from "../xenbus.ts";
import { NetBack, type NetBackOptions } from "./back.ts";
import type { TxRate } from "./device.ts";
import { BACK_NODES, frontFeatures, NET_QUEUES_MAX } from "./features.ts";

export type NetDriverOptions = {
  /** "vif3.0" */
  readonly name: string;
  readonly domid: number;
  readonly devid: number;
  readonly mac: string;
  readonly grants: GrantAccess;
  readonly bind: Bind;
  /** the other end of the cable: a bridge's port, without a cable now */
  readonly port: Port;
  /** payload bytes of an ordinary frame */
  readonly mtu?: number;
  readonly rate?: TxRate | null;
  readonly log: (sentence: string) => void;
};

export class NetDriver implements BackDriver {
  readonly kind = "vif";
  onBroken: (why: string) => void = () => {};
  readonly #options: NetDriverOptions;
  #connected: { readonly back: NetBack; readonly bells: readonly Doorbell[] } | null = null;

  constructor(options: NetDriverOptions) { this.#options = options; }
  offer(): Readonly<Record<string, string>> { return BACK_NODES; }

  connect(front: FrontKeys): void {
    const { name, domid, devid, mac, grants, bind, port, mtu, rate, log } = this.#options;
    const nrQueues = front.number("multi-queue-num-queues", 1, NET_QUEUES_MAX, 1), under = (q: number): string => (nrQueues > 1 ? `queue-${q}/` : "");
    const ref = (key: string): number => front.number(key, 0, 0xffffffff);
    const queues = Array.from({ length: nrQueues }, (_, q) => ({ txRef: ref(`${under(q)}tx-ring-ref`), rxRef: ref(`${under(q)}rx-ring-ref`) }));
    const bells: Doorbell[] = [], tx: Doorbell[] = [], rx: Doorbell[] = [];
    const options: NetBackOptions = {
      domid, devid, mac, gnt: grants, name, log, suited, rate: rate ?? null, notifyTx: (q) => tx[q]!.notify(), notifyRx: (q) => rx[q]!.notify(), onDead: (why) => this.onBroken(why),
      ...(mtu === undefined ? {} : { mtu }),
    };
    const back = new NetBack(options, { queues, features: frontFeatures((node) => front.text(node)) });
    const bound = (key: string, rung: () => void): Doorbell => {
      const bell = bind(ref(key), rung);
      bells.push(bell);
      return bell;
    };
    try {
      for (let q = 0; q < nrQueues; q++) {
        // both: an earlier front end's are left over; Linux's back end looks for the two first
        if (front.text(`${under(q)}event-channel-tx`) === undefined) {
          tx[q] = rx[q] = bound(`${under(q)}event-channel`, () => { back.pollTx(q); back.pollRx(q); });
        } else {
          tx[q] = bound(`${under(q)}event-channel-tx`, () => back.pollTx(q));
          rx[q] = bound(`${under(q)}event-channel-rx`, () => back.pollRx(q));
        }
      }
    } catch (e) {
      for (const bell of bells) bell.close();
      back.close();
      throw e;
    }
    connect(back, port);
    this.#connected = { back, bells };
    back.start();
  }

  /** Have the bridges learn that the address is here: as an ARP of the guest's own would. RFC 903 */
  announce(): void {
    if (this.#connected) this.#options.port.receive({ bytes: rarp(this.#options.mac), checksum: "unknown", gso: null });
  }
  disconnect(): void {
    const connected = this.#connected;
    if (!connected) return;
    this.#connected = null;
    for (const bell of connected.bells) bell.close();
    connected.back.close();
  }
  describe(): Record<string, unknown> {
    return { mac: this.#options.mac, port: this.#options.port.name, isConnected: this.#connected !== null, back: this.#connected?.back.describe() ?? null };
  }
}

/** A reverse ARP request that nobody answers: 60 bytes from the address to all. */
function rarp(mac: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(60), own = mac.split(":").map((part) => Number.parseInt(part, 16));
  bytes.fill(0xff, 0, 6);
  bytes.set(own, 6);
  bytes.set([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3], 12);        // RARP; Ethernet, IPv4, their lengths, request reverse
  bytes.set(own, 22);
  bytes.set(own, 32);
  return bytes;
}
