/**
 * A learning bridge, IEEE 802.1Q without the spanning tree: cables must not make a ring. What a ring does all the same ends at once where frames come back while they are
 * sent (`loop`), and soon where they come back later (`flapping`). A unicast frame for a port that is full waits with its sender; one for many ports waits for none of them.
 */
import { UserError } from "../base/errors.ts";
import { isGroup, macAt, macText } from "./address.ts";
import { hostClock, type NetClock } from "./clock.ts";
import { ForwardingTable, type Station } from "./forwarding.ts";
import { SourceGuard } from "./guard.ts";
import { disconnect, type Frame, type Port } from "./port.ts";
import { type Rate, rateText, TokenBucket } from "./rate.ts";
import { Outgoing, type Tagging, VlanMember, type VlanOptions } from "./vlan.ts";

/**
 * Why a frame went no further. Of the sender: `malformed`, `oversize` (longer than the bridge's MTU), `vlan` (a tag it may not send, or none where it must), `mac` and `ip`
 * (addresses that are not its own), `flapping`, `loop`, `reserved` (for the next bridge only: 802.1Q table 8-1), `hairpin` (the receiver is behind the same port),
 * `isolated` (the receiver is isolated too). Of the receiver: `full`, `stalled`, `unplugged`, `unfit` (cannot be brought into a form that it takes).
 */
export const DROP_REASONS = ["malformed", "oversize", "vlan", "mac", "ip", "flapping", "loop", "reserved", "hairpin", "isolated", "full", "stalled", "unplugged", "unfit"] as const;
/** One of them. */
export type DropReason = (typeof DROP_REASONS)[number];

/** How a port is attached. */
export type BridgePortOptions = {
  /** of the bridge's end, for logs and captures, like "vif3.0"; one of its kind on the bridge */
  readonly name: string;
  /** left out: untagged, in the network of all ports that leave it out */
  readonly vlan?: VlanOptions;
  /** Ethernet addresses that it may send from; they are held for it, and nobody else is heard with them. Left out: any */
  readonly macs?: readonly string[];
  /** IP addresses that it may send from (guard.ts says what else it may then not do). Left out: any */
  readonly ips?: readonly string[];
  /** does not reach other isolated ports */
  readonly isolated?: boolean;
  /** of what comes from it: what is over waits */
  readonly rate?: Rate;
  /** addresses that may be learnt behind it; 256, and an uplink or tunnel wants more */
  readonly macsMax?: number;
};
/** Frames from its peer (`rx`), to its peer (`tx`); bytes without FCS; drops are counted at the port that is the reason. */
export type PortCounters = { rxFrames: number; rxBytes: number; txFrames: number; txBytes: number; readonly dropped: Record<DropReason, number> };
/**
 * Told of each frame that a bridge is given before it goes on, and of its fate by what it returns: null where it went on, "wait" where the sender keeps it and will send it anew.
 * Called while the frame is on its way: it must be quick and must not throw.
 */
export type BridgeTap = (port: BridgePort, frame: Frame) => (fate: DropReason | "wait" | null) => void;

/** A port that was full for so long lets nobody wait for it any more until it takes frames again: a paused guest does not stop its neighbours. */
const STALL_MS = 1000;
/** Sentences that one port may cause in the log. */
const SENTENCES_MAX = 8;
const MACS_MAX = 256;
/** Ethernet's header and two tags. */
const HEADERS_BYTES = 14 + 8, GSO_BYTES_MAX = 65535 + HEADERS_BYTES;

/** The bridge's end of a cable: `connect` it with the other. */
export class BridgePort implements Port, Station {
  readonly name: string;
  readonly takesGso = true;
  readonly takesBlankChecksum = true;
  peer: Port | null = null;
  readonly vlan: VlanMember;
  readonly guard: SourceGuard;
  readonly isIsolated: boolean;
  readonly macsMax: number;
  nrMacs = 0;
  sweptMs = -Infinity;
  nrSentences = 0;
  readonly counters: PortCounters = { rxFrames: 0, rxBytes: 0, txFrames: 0, txBytes: 0, dropped: Object.fromEntries(DROP_REASONS.map((reason) => [reason, 0])) as Record<DropReason, number> };
  readonly #bridge: Bridge;
  readonly #clock: NetClock;
  readonly #bucket: TokenBucket | null;
  #forgetCredit: (() => void) | null = null;
  /** The peer said there was no room, and nothing since. `stalled`: for STALL_MS */
  #state: "open" | "full" | "stalled" = "open";
  #forgetStall: (() => void) | null = null;
  /** segments of a frame of which the peer took the first ones only */
  #rest: readonly Frame[] = [];
  /** who has a frame for this port, the longest waiting first */
  readonly #waiting = new Set<BridgePort>();

  /** Made by `Bridge.attach`. */
  constructor(bridge: Bridge, options: BridgePortOptions, clock: NetClock) {
    this.name = options.name;
    this.vlan = new VlanMember(options.vlan ?? { access: 0 }, options.name);
    this.guard = new SourceGuard(options.name, options.macs, options.ips);
    this.isIsolated = options.isolated ?? false;
    this.macsMax = options.macsMax ?? MACS_MAX;
    this.#bridge = bridge;
    this.#clock = clock;
    this.#bucket = options.rate ? new TokenBucket(options.rate, clock) : null;
  }
  get macs(): ReadonlySet<number> | null { return this.guard.macs; }
  get rate(): Rate | null { return this.#bucket?.rate ?? null; }
  get state(): "open" | "full" | "stalled" { return this.#state; }
  /** ports that wait for this one */
  get nrWaiting(): number { return this.#waiting.size; }

  receive(frame: Frame): boolean {
    const lengthBytes = frame.bytes.length;
    if (!this.peer) {
      this.drop("unplugged");
      return true;
    }
    if (this.#bucket && !this.#bucket.has(lengthBytes)) {
      this.#forgetCredit ??= this.#clock.after(this.#bucket.waitMs(lengthBytes), () => {
        this.#forgetCredit = null;
        this.peer?.ready();
      });
      return false;
    }
    if (!this.#bridge.forward(this, frame)) return false;
    this.#bucket?.spend(lengthBytes);
    this.counters.rxFrames++;
    this.counters.rxBytes += lengthBytes;
    return true;
  }
  /** Count a frame that this port is the reason to drop. */
  drop(reason: DropReason): DropReason {
    this.counters.dropped[reason]++;
    return reason;
  }

  /**
   * Bring a frame to the peer. @param waiter who will send it again when there is room; null: nobody, it is dropped
   * @returns null: it is gone, or why it was dropped; "wait": the waiter keeps it
   */
  send(out: Outgoing, vid: number, waiter: BridgePort | null): DropReason | "wait" | null {
    const { peer } = this, how = this.vlan.leaves(vid);
    if (!peer || !how) return this.drop(peer ? "vlan" : "unplugged");
    if (this.#state === "full") return this.#refuse(waiter);
    const frames = out.for(peer, how);
    if (frames.length === 0) return this.drop("unfit");
    const nrTaken = this.#give(peer, frames);
    if (nrTaken > 0) this.#open();
    if (nrTaken === frames.length) return null;
    if (nrTaken === 0 && this.#state === "stalled") return this.drop("stalled");
    this.#fill();
    if (nrTaken === 0) return this.#refuse(waiter);
    this.#rest = frames.slice(nrTaken);
    return null;
  }
  #refuse(waiter: BridgePort | null): DropReason | "wait" {
    if (!waiter) return this.drop("full");
    this.#waiting.add(waiter);
    return "wait";
  }
  #give(peer: Port, frames: readonly Frame[]): number {
    for (let i = 0; i < frames.length; i++) {
      const frame = frames[i]!;
      if (!peer.receive(frame)) return i;
      this.counters.txFrames++;
      this.counters.txBytes += frame.bytes.length;
    }
    return frames.length;
  }

  #fill(): void {
    if (this.#state !== "open") return;
    this.#state = "full";
    this.#forgetStall = this.#clock.after(STALL_MS, () => {
      this.#forgetStall = null;
      this.#state = "stalled";
      for (const _ of this.#rest) this.drop("stalled");
      this.#rest = [];
      this.#wake();
    });
  }
  #open(): void {
    this.#state = "open";
    this.#forgetStall?.();
    this.#forgetStall = null;
  }
  /** Room again at the peer: what is left of a frame first, then those who wait, the longest waiting first, until it is full again. */
  ready(): void {
    this.#open();
    const { peer } = this, rest = this.#rest;
    this.#rest = [];
    if (peer && rest.length > 0) {
      const nrTaken = this.#give(peer, rest);
      if (nrTaken < rest.length) {
        this.#rest = rest.slice(nrTaken);
        this.#fill();
        return;
      }
    }
    this.#wake();
  }
  #wake(): void {
    // One turn for each that waits now: who is refused again stands at the end.
    for (let nr = this.#waiting.size; nr > 0 && this.#state !== "full"; nr--) {
      const [first] = this.#waiting;
      if (!first) return;
      this.#waiting.delete(first);
      first.peer?.ready();
    }
  }
  /** Leave the bridge and pull the cable. Safe to call again. */
  detach(): void {
    this.#bridge.remove(this);
  }
  /** The bridge's part of `detach`: nobody waits for this port any more, and it for nothing. */
  close(): void {
    this.#forgetCredit?.();
    this.#forgetCredit = null;
    this.#open();
    this.#rest = [];
    disconnect(this);
    this.#wake();
  }
  /** It no longer waits for another port. */
  stopWaitingFor(other: BridgePort): void {
    other.#waiting.delete(this);
  }
}

/** A row of a listing. `vlan` is "" for a port of no VLAN, `macs` what is behind it. */
export type PortDescription = {
  readonly name: string; readonly peer: string | null; readonly vlan: string; readonly isolated: boolean; readonly rate: string; readonly state: "open" | "full" | "stalled";
  readonly macs: readonly { readonly mac: string; readonly vid: number; readonly idleMs: number; readonly listed: boolean }[]; readonly counters: PortCounters;
};

/** A bridge in this machine. */
export class Bridge {
  readonly name: string;
  readonly mtuBytes: number;
  readonly #log: (sentence: string) => void;
  readonly #clock: NetClock;
  readonly #table: ForwardingTable<BridgePort>;
  /** never changed, but replaced: a frame that is being flooded goes to those that were there */
  #ports: readonly BridgePort[] = [];
  readonly #taps = new Set<BridgeTap>();
  /** frames that are being flooded now; a cable may bring one back while it is */
  readonly #floods: { readonly vid: number; readonly source: number; readonly port: BridgePort }[] = [];

  /** @param options `mtuBytes`: of what Ethernet carries, 1500 if not said; `clock`: the host's if not said */
  constructor(options: { name: string; log?: (sentence: string) => void; clock?: NetClock; mtuBytes?: number }) {
    this.name = options.name;
    this.mtuBytes = options.mtuBytes ?? 1500;
    this.#log = options.log ?? (() => {});
    this.#clock = options.clock ?? hostClock;
    this.#table = new ForwardingTable(this.#clock, (port, sentence) => this.#say(port, sentence));
  }
  #say(port: BridgePort, sentence: string): void {
    if (++port.nrSentences <= SENTENCES_MAX) this.#log(`${this.name}: ${sentence}${port.nrSentences === SENTENCES_MAX ? `; no more is said of ${port.name}` : ""}`);
  }

  get ports(): readonly BridgePort[] { return this.#ports; }
  /** A new port, to be connected with whatever shall be on the bridge. @throws UserError for options that are wrong */
  attach(options: BridgePortOptions): BridgePort {
    if (this.#ports.some((port) => port.name === options.name)) throw new UserError(`Bridge ${this.name} has a port ${options.name} already`);
    const port = new BridgePort(this, options, this.#clock);
    this.#ports = [...this.#ports, port];
    // Where a trunk's addresses are is learnt when they speak.
    if (options.vlan === undefined || "access" in options.vlan) for (const mac of port.macs ?? []) this.#table.hold(port.vlan.untagged!, mac, port);
    return port;
  }
  /** The bridge's part of `port.detach()`. */
  remove(port: BridgePort): void {
    if (!this.#ports.includes(port)) return;
    this.#ports = this.#ports.filter((other) => other !== port);
    this.#table.forget(port);
    for (const other of this.#ports) port.stopWaitingFor(other);
    port.close();
  }
  /** Detach all ports. */
  close(): void {
    for (const port of this.#ports) port.detach();
  }

  /** Be told of each frame that enters. @returns ends it */
  tap(tap: BridgeTap): () => void {
    this.#taps.add(tap);
    return () => { this.#taps.delete(tap); };
  }

  /** A frame from `port`'s peer. @returns false: it was not taken, the sender keeps it until `ready` */
  forward(port: BridgePort, frame: Frame): boolean {
    if (this.#taps.size === 0) return this.#forward(port, frame) !== "wait";
    const tellers = [...this.#taps].map((tap) => tap(port, frame)), fate = this.#forward(port, frame);
    for (const tell of tellers) tell(fate);
    return fate !== "wait";
  }
  #forward(port: BridgePort, frame: Frame): DropReason | "wait" | null {
    const { bytes, gso } = frame;
    if (bytes.length < 14) return port.drop("malformed");
    if (bytes.length > (gso ? GSO_BYTES_MAX : this.mtuBytes + HEADERS_BYTES) || (gso && gso.mss > this.mtuBytes)) return port.drop("oversize");
    const target = macAt(bytes, 0), source = macAt(bytes, 6);
    if (source === 0 || isGroup(source)) return port.drop("malformed");
    const tagging = port.vlan.classify(bytes);
    if (!tagging) return port.drop("vlan");
    const refused = port.guard.check(bytes, source, tagging);
    if (refused) return port.drop(refused);
    if (target >= 0x0180_c200_0000 && target <= 0x0180_c200_000f) return port.drop("reserved");
    if (this.#isComingBack(tagging.vid, source, port)) return port.drop("loop");
    const notLearnt = this.#table.learn(tagging.vid, source, port);
    if (notLearnt) return port.drop(notLearnt);
    const to = isGroup(target) ? null : this.#table.find(tagging.vid, target);
    if (!to) return this.#flood(port, frame, tagging, source);
    if (to === port) return port.drop("hairpin");
    if (to.isIsolated && port.isIsolated) return port.drop("isolated");
    return to.send(new Outgoing(frame, tagging), tagging.vid, port);
  }
  #isComingBack(vid: number, source: number, port: BridgePort): boolean {
    return this.#floods.length > 0 && this.#floods.some((flood) => flood.source === source && flood.vid === vid && flood.port !== port);
  }
  #flood(port: BridgePort, frame: Frame, tagging: Tagging, source: number): null {
    const out = new Outgoing(frame, tagging);
    this.#floods.push({ vid: tagging.vid, source, port });
    try {
      for (const to of this.#ports) {
        if (to !== port && !(to.isIsolated && port.isIsolated) && to.vlan.leaves(tagging.vid)) to.send(out, tagging.vid, null);
      }
    } finally {
      this.#floods.pop();
    }
    return null;
  }

  /** What a listing shows. */
  describe(): { readonly name: string; readonly mtuBytes: number; readonly ports: readonly PortDescription[] } {
    const rows = [...this.#table.rows()];
    const ports = this.#ports.map((port) => ({
      name: port.name, peer: port.peer?.name ?? null, vlan: port.vlan.text, isolated: port.isIsolated, rate: port.rate ? rateText(port.rate) : "", state: port.state,
      macs: rows.filter((row) => row.port === port).map(({ mac, vid, idleMs, isListed }) => ({ mac: macText(mac), vid, idleMs, listed: isListed })),
      counters: { ...port.counters, dropped: { ...port.counters.dropped } },
    }));
    return { name: this.name, mtuBytes: this.mtuBytes, ports };
  }
}
