/**
 * The back end of a guest's network device: public/io/netif.h. On one side its front end's rings, one pair a queue; on the other an end of a cable (src/network/port.ts).
 * Whoever makes it knows xenstore and event channels: it reads the rings' grants and the front end's features, calls `pollTx` and `pollRx` at events, and `close` at the end.
 */
import { NETIF_RX_SLOT_BYTES, NETIF_TX_SLOT_BYTES } from "../../abi/io/netif.ts";
import { hostClock } from "../../network/clock.ts";
import { disconnect, type Frame, type Port } from "../../network/port.ts";
import type { GrantAccess, MappedPage } from "../grants.ts";
import { BackRing, FrontRefusal, mapRing } from "../ring.ts";
import { type NetDevice, type Timers, type TxRate } from "./device.ts";
import { type FrontFeatures, NET_QUEUES_MAX } from "./features.ts";
import { flowHash } from "./flow.ts";
import { RxQueue } from "./rx.ts";
import { TxQueue } from "./tx.ts";

/** Sentences about what the guest does that are logged; the counters go on. */
const COMPLAINTS_MAX = 3;

/** What the back end stands on; the rest of its life it is given nothing. */
export type NetBackOptions = {
  readonly domid: number;
  readonly devid: number;
  /** the front end's address, for listings */
  readonly mac: string;
  readonly gnt: GrantAccess;
  /** Send the event of a queue's transmit or receive half; where a queue has one event for both, both send it. */
  readonly notifyTx: (queue: number) => void;
  readonly notifyRx: (queue: number) => void;
  readonly log: (sentence: string) => void;
  /** limit on what the guest sends, all queues together */
  readonly rate?: TxRate | null;
  /** "vif3.0" */
  readonly name: string;
  /** longest payload of an ordinary frame from the guest; 1500 when not given */
  readonly mtu?: number;
  /** the frames a peer takes instead of one it cannot take (`suited` of src/network/offload.ts); when not given, such a frame is lost */
  readonly suited?: (frame: Frame, peer: Port) => Frame[];
  /** told once, when the front end has broken its rings: the device is to be closed */
  readonly onDead?: (why: string) => void;
  readonly timers?: Timers;
};
/** What the front end wrote into its folder. */
export type NetFront = {
  readonly queues: readonly { readonly txRef: number; readonly rxRef: number }[];
  readonly features: FrontFeatures;
};
/** Counters of one queue's half. */
export type NetCounters = { nrFrames: number; nrBytes: number; nrErrors: number; nrDropped: number; nrEvents: number };

/** A device as an inspector sees it; of a closed one the rings are null. */
export type NetBackState = {
  name: string;
  mac: string;
  dead: string | null;
  takesGso: boolean;
  takesBlankChecksum: boolean;
  queues: {
    tx: NetCounters & { isHeld: boolean; ring: ReturnType<BackRing["describe"]> | null };
    rx: NetCounters & { nrWaiting: number; nrBytesWaiting: number; ring: ReturnType<BackRing["describe"]> | null };
  }[];
};

type Queue = { tx: TxQueue; rx: RxQueue; txRing: BackRing; rxRing: BackRing };

const onlyAsItIs = (frame: Frame, peer: Port): Frame[] => ((frame.gso && !peer.takesGso) || (frame.checksum === "blank" && !peer.takesBlankChecksum) ? [] : [frame]);
const countersOf = ({ nrFrames, nrBytes, nrErrors, nrDropped, nrEvents }: NetCounters): NetCounters => ({ nrFrames, nrBytes, nrErrors, nrDropped, nrEvents });

/** One connected device, from the front end's Initialised or Connected state to its Closing; a front end that comes back gets a new one. */
export class NetBack implements Port, NetDevice {
  readonly name: string;
  readonly domid: number;
  readonly devid: number;
  readonly mac: string;
  readonly gnt: GrantAccess;
  readonly features: FrontFeatures;
  readonly timers: Timers;
  readonly rate: TxRate | null;
  readonly mtu: number;
  readonly suited: (frame: Frame, peer: Port) => Frame[];
  readonly takesGso: boolean;
  readonly takesBlankChecksum: boolean;
  peer: Port | null = null;
  readonly #log: (sentence: string) => void;
  readonly #onDead: ((why: string) => void) | undefined;
  #pages: MappedPage[] = [];
  readonly #queues: Queue[] = [];
  #dead: string | null = null;
  #isClosed = false;
  #turn = 0;
  #nrComplaints = 0;

  /** Map the rings; plug the cable in and call `start` then. @throws FrontRefusal, with nothing left mapped */
  constructor(options: NetBackOptions, front: NetFront) {
    this.name = options.name;
    this.domid = options.domid;
    this.devid = options.devid;
    this.mac = options.mac;
    this.gnt = options.gnt;
    this.features = front.features;
    this.timers = options.timers ?? hostClock;
    this.rate = options.rate ?? null;
    this.mtu = options.mtu ?? 1500;
    this.suited = options.suited ?? onlyAsItIs;
    this.#log = options.log;
    this.#onDead = options.onDead;
    const { sg, gsoTcpv4, gsoTcpv6, noCsumOffload, ipv6CsumOffload, requestRxCopy } = front.features;
    this.takesBlankChecksum = !noCsumOffload && ipv6CsumOffload;
    this.takesGso = sg && gsoTcpv4 && gsoTcpv6 && this.takesBlankChecksum;
    if (!requestRxCopy) throw new FrontRefusal("The front end does not ask for request-rx-copy, the only way of receiving there is");
    if (front.queues.length < 1 || front.queues.length > NET_QUEUES_MAX) throw new FrontRefusal(`The front end has ${front.queues.length} queues, 1 to ${NET_QUEUES_MAX} can be had`);
    try {
      for (const [nr, { txRef, rxRef }] of front.queues.entries()) this.#queues.push(this.#open(nr, txRef, rxRef, options));
    } catch (e) {
      this.#unmap();
      throw e;
    }
  }
  #open(nr: number, txRef: number, rxRef: number, options: NetBackOptions): Queue {
    const ring = (what: string, ref: number, slotBytes: number): BackRing => {
      const pages = mapRing(this.gnt, [ref], what);
      this.#pages.push(...pages);
      return new BackRing(this.gnt.words, pages.map((page) => page.at), slotBytes);
    };
    const txRing = ring("tx-ring-ref", txRef, NETIF_TX_SLOT_BYTES), rxRing = ring("rx-ring-ref", rxRef, NETIF_RX_SLOT_BYTES);
    return { txRing, rxRing, tx: new TxQueue(this, txRing, () => options.notifyTx(nr)), rx: new RxQueue(this, rxRing, () => options.notifyRx(nr), () => this.peer?.ready()) };
  }

  /** Do what the front end asked for before there were events. */
  start(): void {
    for (const { tx, rx } of this.#queues) {
      tx.poll();
      rx.poll();
    }
  }
  /** The event of a queue's transmit half came; for a queue with one event, call both. */
  pollTx(queue: number): void { this.#queues[queue]?.tx.poll(); }
  pollRx(queue: number): void { this.#queues[queue]?.rx.poll(); }

  receive(frame: Frame): boolean {
    const nr = this.#queues.length === 1 ? 0 : flowHash(frame.bytes) % this.#queues.length;
    return this.#queues[nr]!.rx.offer(frame);
  }
  ready(): void {
    const queues = this.#queues;
    this.#turn = (this.#turn + 1) % queues.length;  // room for one frame is not always the first queue's
    for (let i = 0; i < queues.length; i++) queues[(this.#turn + i) % queues.length]!.tx.ready();
  }

  get isDead(): boolean {
    return this.#dead !== null;
  }
  complain(sentence: string): void {
    if (++this.#nrComplaints <= COMPLAINTS_MAX) this.#log(`${this.name}: ${sentence}`);
  }
  die(sentence: string): void {
    if (this.#dead !== null || this.#isClosed) return;
    this.#dead = sentence;
    this.#log(`${this.name}: ${sentence}; the device stops`);
    this.#stop();
    this.#onDead?.(sentence);
  }
  /** Nothing waits for us any more: what is sent here is lost from now on. */
  #stop(): void {
    for (const { tx, rx } of this.#queues) {
      tx.close();
      rx.close();
    }
    this.peer?.ready();
  }
  #unmap(): void {
    for (const page of this.#pages) this.gnt.unmap(page);
    this.#pages = [];
  }

  /** Let go of the rings and pull the cable out; what waits is lost. Safe to call again. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#stop();
    disconnect(this);
    this.#unmap();
  }
  /** For an inspector. */
  describe(): NetBackState {
    const { name, mac, takesGso, takesBlankChecksum } = this, ringOf = (ring: BackRing) => (this.#isClosed ? null : ring.describe());
    return { name, mac, dead: this.#dead, takesGso, takesBlankChecksum, queues: this.#queues.map(({ tx, rx, txRing, rxRing }) => ({
      tx: { ...countersOf(tx), isHeld: tx.isHeld, ring: ringOf(txRing) },
      rx: { ...countersOf(rx), nrWaiting: rx.nrWaiting, nrBytesWaiting: rx.nrBytesWaiting, ring: ringOf(rxRing) },
    })) };
  }
}
