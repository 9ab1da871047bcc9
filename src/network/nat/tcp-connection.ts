/**
 * One TCP connection of a guest's, ended here (RFC 9293), and spliced to a stream outside. "Far" is that stream; "the guest" is the peer of the TCP below.
 * Left out: timestamps, SACK, urgent data (taken as ordinary), simultaneous open.
 */
import type { Gso } from "../port.ts";
import type { Address } from "./address.ts";
import type { Packet } from "./packet.ts";
import type { Flow } from "./flow-table.ts";
import type { Lan } from "./lan.ts";
import type { OutsideStream, StreamEvents, StreamFault } from "./outside.ts";
import { Reorder, SendBuffer } from "./tcp-buffers.ts";
import { Congestion } from "./tcp-congestion.ts";
import { finishSegment, newSegment, readSynOptions, synOptions, TCP } from "./tcp-segment.ts";
import { Timer, type TimerWheel } from "./timers.ts";

/** RFC 9293 3.3.2, without LISTEN; `connecting` is ours: the guest's SYN waits for what the far end says. */
export type TcpState = "connecting" | "synSent" | "synReceived" | "established" | "finWait1" | "finWait2" | "closeWait" | "closing" | "lastAck" | "timeWait"
  | "closed";

const DELAYED_ACK_MS = 20, CONNECT_MS = 90_000, TIME_WAIT_MS = 10_000;
const KEEPALIVE_IDLE_MS = 2 * 3600_000, KEEPALIVE_RETRY_MS = 75_000, KEEPALIVE_TRIES = 9;
const SYN_TRIES = 6, RETRIES = 12;
/** Bytes of the headers before a segment's data where there are no options. */
const HEADER_BYTES = { 4: 40, 6: 60 } as const;
/** A large frame at most: an IPv4 packet is no longer than 65535 bytes, and TCP's header may have 20 more. */
const GSO_BYTES_MAX = 65535 - 20;
const OUR_WINDOW_SHIFT = 5, BUFFER_BYTES_MAX = 1 << 20;
const NEVER = Number.POSITIVE_INFINITY;

/** What a connection needs of the layer that has it. */
export interface TcpHost {
  readonly lan: Lan;
  readonly wheel: TimerWheel;
  readonly mtu: number;
  readonly random: () => number;
  /** connections that stopped sending because the peer is full */
  readonly waiting: Set<TcpConnection>;
  readonly counts: {
    nrRetransmits: number; nrFastRetransmits: number; nrTimeouts: number; nrProbes: number; nrResetsSent: number; nrResetsTaken: number; nrOutOfOrder: number;
  };
  /** Bytes that a connection may hold in each direction: asked when it opens and when it wants more than `nowBytes`. */
  grant(nowBytes: number): number;
  /** @returns whether this second's challenge acknowledgements (RFC 5961) are not used up */
  mayChallenge(): boolean;
  /** The far end could not be reached; the guest is told why. */
  refused(c: TcpConnection, fault: StreamFault | null): void;
  /** It is open: it no longer counts as one that is being opened. */
  settled(c: TcpConnection): void;
  timeWaits(c: TcpConnection): void;
  gone(c: TcpConnection): void;
}

/** The state of one connection; it removes itself from its TcpHost (`gone`) when it is over. */
export class TcpConnection implements StreamEvents, Flow<TcpConnection> {
  readonly guestAddress: Address;
  readonly guestPort: number;
  readonly remoteAddress: Address;
  readonly remotePort: number;
  /** of the guest's station, whatever its addresses; 0: not known */
  readonly owner: number;
  chained: TcpConnection | null = null;
  state: TcpState;
  far: OutsideStream | null = null;
  /** the SYN that waits for the far end, so that an ICMP error can quote it */
  syn: Packet | null = null;
  bufferBytes: number;

  readonly #host: TcpHost;
  /** what a segment's data has in front of it, what it can be at most on the guests' link, and what a large frame is called */
  readonly #headerBytes: number;
  readonly #mssMax: number;
  readonly #gsoType: Gso["type"];
  /** the only station that has to do with it; -1: whichever has the address, which in IPv4 is known by its lease */
  readonly #station: number;
  #isFarPaused = false;
  readonly #out = new SendBuffer();
  readonly #early = new Reorder();
  #congestion: Congestion;
  /** the guest's limits */
  #mss = 536;
  #guestShift = 0;
  #ourShift = 0;
  // Send and receive sequence variables, RFC 9293 3.3.1. `nxt` falls back to `una` when a timer runs out, `max` does not.
  readonly #iss: number;
  #una: number;
  #nxt: number;
  #max: number;
  #wnd = 0;
  #wl1 = 0;
  #wl2 = 0;
  #maxWnd = 0;
  #irs = 0;
  #rcvNxt = 0;
  /** right edge of the window that the guest was told */
  #rcvAdv = 0;
  /** the far end has ended: a FIN follows the buffer's last byte */
  #hasFin = false;
  #unackedBytes = 0;
  #sinceGrownBytes = 0;
  #nrTries = 0;
  readonly #timer = new Timer((nowMs) => this.#onTimer(nowMs));
  #retransmitMs = NEVER;
  #ackMs = NEVER;
  #idleMs = NEVER;

  constructor(host: TcpHost, guestAddress: Address, guestPort: number, remoteAddress: Address, remotePort: number, owner: number, state: "connecting" | "synSent") {
    const isV6 = typeof guestAddress === "bigint";
    this.#host = host;
    this.owner = owner;
    this.#headerBytes = HEADER_BYTES[isV6 ? 6 : 4];
    this.#mssMax = host.mtu - this.#headerBytes;
    this.#gsoType = isV6 ? "tcpv6" : "tcpv4";
    this.#station = isV6 && owner !== 0 ? owner : -1;
    this.guestAddress = guestAddress;
    this.guestPort = guestPort;
    this.remoteAddress = remoteAddress;
    this.remotePort = remotePort;
    this.state = state;
    this.#iss = this.#una = this.#nxt = this.#max = host.random() | 0;
    this.#congestion = new Congestion(this.#mss, this.#iss);
    this.bufferBytes = host.grant(0);
  }

  /** Is `mac` a station to which the guest's address has passed? It has no business with the connection. */
  isForeignTo(mac: number): boolean {
    return this.#station >= 0 && this.#station !== mac;
  }

  // ---- opening

  /** The guest's SYN: wait for the far end, which is to be set in `far`. */
  openedByGuest(p: Packet, seq: number): void {
    this.syn = p;
    this.#irs = seq;
    this.#rcvNxt = (seq + 1) | 0;
    this.#ourShift = OUR_WINDOW_SHIFT;
    this.#readOptions(p);
    this.#wnd = p.view.getUint16(p.at + 14);
    this.#idleMs = this.#host.wheel.nowMs() + CONNECT_MS;
    this.#arm();
  }
  /** Open towards the guest for a far end that is connected and paused. */
  openToGuest(far: OutsideStream): void {
    this.far = far;
    this.#isFarPaused = true;
    this.#ourShift = OUR_WINDOW_SHIFT;
    this.#max = this.#nxt = (this.#iss + 1) | 0;
    this.#sendSyn(TCP.SYN);
  }
  #sendSyn(flags: number): void {
    // The window of a SYN is never scaled (RFC 7323 2.2).
    const window = Math.min(this.bufferBytes, 65535);
    if (flags & TCP.ACK) this.#rcvAdv = (this.#rcvNxt + window) | 0;
    this.#emit(flags, this.#iss, 0, 0, window, synOptions(this.#mssMax, this.#ourShift));
    this.#retransmitMs = this.#host.wheel.nowMs() + this.#congestion.rtoMs;
    this.#arm();
  }
  #readOptions(p: Packet): void {
    const { mss, shift } = readSynOptions(p);
    this.#mss = Math.max(88, Math.min(mss, this.#mssMax));
    this.#guestShift = shift ?? 0;
    if (shift === null) this.#ourShift = 0;
    this.#congestion = new Congestion(this.#mss, this.#iss);
  }

  // ---- the far end's events

  connected(): void {
    if (this.state !== "connecting") return;
    this.state = "synReceived";
    this.syn = null;
    this.#idleMs = NEVER;
    this.#max = this.#nxt = (this.#iss + 1) | 0;
    this.#sendSyn(TCP.SYN | TCP.ACK);
  }
  data(bytes: Uint8Array): void {
    if (this.state === "closed" || this.#hasFin) return;
    this.#out.push(bytes);
    if (!this.#isFarPaused && this.#out.bytes >= this.bufferBytes) {
      this.#isFarPaused = true;
      this.far?.pause();
    }
    this.#push();
  }
  drained(): void {
    if (this.state === "established" || this.state === "finWait1" || this.state === "finWait2") this.#tellWindow();
  }
  ended(): void {
    if (this.state === "closed" || this.#hasFin) return;
    this.#hasFin = true;
    this.#push();
  }
  closed(fault: StreamFault | null): void {
    this.far = null;
    if (this.state === "closed" || this.state === "timeWait") return;
    if (this.state === "connecting") {
      this.#host.refused(this, fault);
      this.#remove();
    } else if (fault !== null || !this.#hasFin) this.reset();
  }

  // ---- segments of the guest's

  /** Take a segment that belongs to this connection and whose checksum and lengths are right. RFC 9293 3.10.7 */
  receive(p: Packet, seq: number, ack: number, flags: number, window: number, dataAt: number): void {
    if (this.state === "connecting") {
      if (flags & TCP.RST && seq === this.#rcvNxt) this.abort();
      return;
    }
    if (this.state === "synSent") return this.#receiveInSynSent(p, seq, ack, flags, window);
    if (this.state === "synReceived" && flags & TCP.SYN && seq === this.#irs && !(flags & TCP.ACK)) return this.#sendSyn(TCP.SYN | TCP.ACK);
    let from = dataAt, to = p.end, hasFin = (flags & TCP.FIN) !== 0;
    const length = to - from + (hasFin ? 1 : 0) + (flags & TCP.SYN ? 1 : 0), right = this.#rcvAdv - this.#rcvNxt | 0, offset = (seq - this.#rcvNxt) | 0;
    const isAcceptable = length === 0 ? offset === 0 || (offset > 0 && offset < right) : offset < right && offset + length > 0;
    if (!isAcceptable) {
      // Its acknowledgement counts all the same where only the data is outside (RFC 9293 3.10.7.4: a zero window takes valid ACKs).
      if (flags & TCP.RST) return;
      if (flags & TCP.ACK && offset <= Math.max(right, 0) && !(flags & TCP.SYN) && this.state !== "synReceived") this.#receiveAck(seq, ack, window, true);
      if (this.#isOpen()) this.#ack();
      if (this.state === "timeWait") this.#enterTimeWait();
      return;
    }
    if (flags & TCP.RST) {
      // RFC 5961 3.2: only the exact number resets, another inside the window is asked about.
      if (offset !== 0) return this.#challenge();
      this.#host.counts.nrResetsTaken++;
      return this.abort();
    }
    if (flags & TCP.SYN) return this.#challenge();
    if (!(flags & TCP.ACK)) return;
    if (this.state === "synReceived") {
      if (ack !== this.#max) {
        this.#emit(TCP.RST, ack, 0, 0, 0);
        return;
      }
      this.#establish(seq, ack, window);
    } else if (!this.#receiveAck(seq, ack, window, to > from || hasFin)) return;
    if (!this.#isOpen()) return;
    this.#idleMs = this.#host.wheel.nowMs() + (this.state === "timeWait" ? TIME_WAIT_MS : KEEPALIVE_IDLE_MS);

    if (offset < 0) from += Math.min(-offset, to - from);
    if (offset + (to - dataAt) > right) {
      to = dataAt + right - offset;
      hasFin = false;
    }
    if (from < to || hasFin) this.#receiveData(p, (seq + from - dataAt) | 0, from, to, hasFin);
    else this.#arm();
  }
  #isOpen(): boolean {
    return this.state !== "closed";
  }
  #receiveInSynSent(p: Packet, seq: number, ack: number, flags: number, window: number): void {
    if (flags & TCP.ACK && ack !== this.#max) {
      if (!(flags & TCP.RST)) this.#emit(TCP.RST, ack, 0, 0, 0);
      return;
    }
    if (flags & TCP.RST) {
      if (flags & TCP.ACK) this.abort();
      return;
    }
    if ((flags & (TCP.SYN | TCP.ACK)) !== (TCP.SYN | TCP.ACK)) return;
    this.#irs = seq;
    this.#rcvNxt = this.#rcvAdv = (seq + 1) | 0;
    this.#readOptions(p);
    // The window of a SYN is not scaled; #establish scales.
    const shift = this.#guestShift;
    this.#guestShift = 0;
    this.#establish(seq, ack, window, false);
    this.#guestShift = shift;
    this.#ack();
    this.#isFarPaused = false;
    this.far?.resume();
    this.#push();
  }
  #establish(seq: number, ack: number, window: number, sends = true): void {
    this.state = "established";
    this.#host.settled(this);
    this.#una = ack;
    this.#wnd = this.#maxWnd = window << this.#guestShift;
    this.#wl1 = seq;
    this.#wl2 = ack;
    this.#nrTries = 0;
    this.#congestion.alive();
    this.#retransmitMs = NEVER;
    this.#idleMs = this.#host.wheel.nowMs() + KEEPALIVE_IDLE_MS;
    if (sends) this.#push();
  }

  /** @returns whether the segment may be looked at further */
  #receiveAck(seq: number, ack: number, window: number, carriesData: boolean): boolean {
    const news = (ack - this.#una) | 0, flight = (this.#max - this.#una) | 0;
    // RFC 5961 5.2: neither what was never sent nor what is older than the largest window.
    if (news > flight || news < -Math.max(this.#maxWnd, 65535)) {
      this.#challenge();
      return false;
    }
    const scaled = window << this.#guestShift, nowMs = this.#host.wheel.nowMs();
    let advice = "nothing";
    this.#nrTries = 0;
    if (news > 0) {
      const dataEnd = (this.#una + this.#out.bytes) | 0, isFinAcked = ((ack - dataEnd) | 0) > 0;
      this.#out.drop(Math.min(news, this.#out.bytes));
      this.#una = ack;
      if (((this.#nxt - ack) | 0) < 0) this.#nxt = ack;
      advice = this.#congestion.acked(ack, news, (this.#max - ack) | 0, nowMs);
      this.#retransmitMs = ack === this.#max ? NEVER : nowMs + this.#congestion.rtoMs;
      if (isFinAcked) this.#finAcked();
      if (!this.#isOpen()) return false;
      if (this.#isFarPaused && this.#out.bytes < this.bufferBytes / 2) {
        this.#isFarPaused = false;
        if (this.bufferBytes < BUFFER_BYTES_MAX) this.bufferBytes = this.#host.grant(this.bufferBytes);
        this.far?.resume();
      }
    } else if (news === 0 && flight > 0 && !carriesData && scaled === this.#wnd && this.#wnd > 0) advice = this.#congestion.duplicate(this.#una, this.#max);
    if (((seq - this.#wl1) | 0) > 0 || (seq === this.#wl1 && ((ack - this.#wl2) | 0) >= 0)) {
      // Nothing was out and the window was shut: what waits now is no loss.
      if (this.#wnd === 0 && scaled > 0) {
        this.#congestion.alive();
        this.#retransmitMs = this.#una === this.#nxt ? NEVER : nowMs + this.#congestion.rtoMs;
      }
      this.#wnd = scaled;
      this.#maxWnd = Math.max(this.#maxWnd, scaled);
      this.#wl1 = seq;
      this.#wl2 = ack;
    }
    if (advice === "retransmit") this.#retransmitOne();
    this.#push();
    return this.#isOpen();
  }
  #finAcked(): void {
    if (this.state === "finWait1") this.state = "finWait2";
    else if (this.state === "closing") this.#enterTimeWait();
    else if (this.state === "lastAck") this.#remove();
  }

  #receiveData(p: Packet, seq: number, from: number, to: number, hasFin: boolean): void {
    const state = this.state;
    // After the guest's FIN there is nothing more to come.
    if (state !== "established" && state !== "finWait1" && state !== "finWait2") return this.#ack();
    if (from < to && !this.far) return this.reset();
    // The window counts bytes, the far end counts what it keeps: a flood of tiny segments is let fall when it costs too much, and comes again.
    if (from < to && this.far!.unsentBytes >= 2 * this.bufferBytes) return this.#ack();
    if (seq !== this.#rcvNxt) {
      this.#host.counts.nrOutOfOrder++;
      this.#early.add(seq, p.bytes.subarray(from, to), this.bufferBytes);
      return this.#ack();
    }
    const filledHole = !this.#early.isEmpty;
    if (from < to) this.#deliver(p.bytes.subarray(from, to));
    if (filledHole) for (let more = this.#early.take(this.#rcvNxt); more && this.#isOpen(); more = this.#early.take(this.#rcvNxt)) this.#deliver(more);
    if (!this.#isOpen()) return;
    if (hasFin && ((seq + to - from - this.#rcvNxt) | 0) === 0) return this.#receiveFin();
    if (filledHole || this.#unackedBytes >= 2 * this.#mss) return this.#ack();
    if (this.#ackMs === NEVER) this.#ackMs = this.#host.wheel.nowMs() + DELAYED_ACK_MS;
    this.#arm();
  }
  #deliver(bytes: Uint8Array): void {
    this.#rcvNxt = (this.#rcvNxt + bytes.length) | 0;
    this.#unackedBytes += bytes.length;
    this.#sinceGrownBytes += bytes.length;
    if (this.#sinceGrownBytes >= this.bufferBytes && this.bufferBytes < BUFFER_BYTES_MAX) {
      this.#sinceGrownBytes = 0;
      // More room is for a far end that takes what it gets.
      if ((this.far?.unsentBytes ?? 0) < this.bufferBytes / 2) this.bufferBytes = this.#host.grant(this.bufferBytes);
    }
    this.far?.write(bytes);
  }
  #receiveFin(): void {
    this.#rcvNxt = (this.#rcvNxt + 1) | 0;
    this.#early.clear();
    if (this.state === "established") this.state = "closeWait";
    else if (this.state === "finWait1") this.state = "closing";
    else this.#enterTimeWait();
    this.#ack();
    this.far?.end();
  }

  // ---- sending

  /** Send what windows, the peer and the buffer allow. */
  #push(): void {
    const host = this.#host, largest = GSO_BYTES_MAX - this.#headerBytes;
    for (;;) {
      const s = this.state;
      if (s !== "established" && s !== "closeWait" && s !== "finWait1" && s !== "closing" && s !== "lastAck") return;
      const offset = (this.#nxt - this.#una) | 0, left = this.#out.bytes - offset;
      if (left < 0 || (left === 0 && !this.#hasFin)) break;
      const maxBytes = host.lan.takesGso ? Math.max(this.#mss, largest - largest % this.#mss) : this.#mss;
      let n = Math.max(0, Math.min(left, Math.min(this.#wnd, this.#congestion.cwnd) - offset, maxBytes));
      if (n < left) {
        if (n > this.#mss) n -= n % this.#mss;
        // Silly windows, RFC 9293 3.8.6.2.1: small pieces wait, unless nothing is out and half of what the guest ever offered is open.
        else if (n < this.#mss && (offset > 0 || n === 0 || n < this.#maxWnd / 2)) break;
      }
      if (!host.lan.hasRoom) {
        host.waiting.add(this);
        break;
      }
      const isLast = n === left, hasFin = isLast && this.#hasFin, seq = this.#nxt, nowMs = host.wheel.nowMs();
      this.#nxt = (seq + n + (hasFin ? 1 : 0)) | 0;
      if (((this.#nxt - this.#max) | 0) > 0) {
        if (seq === this.#max) this.#congestion.sent(this.#nxt, nowMs);
        this.#max = this.#nxt;
      } else host.counts.nrRetransmits++;
      if (this.#retransmitMs === NEVER) this.#retransmitMs = nowMs + this.#congestion.rtoMs;
      if (hasFin) {
        if (s === "established") this.state = "finWait1";
        else if (s === "closeWait") this.state = "lastAck";
      }
      this.#emit(TCP.ACK | (isLast ? TCP.PSH : 0) | (hasFin ? TCP.FIN : 0), seq, n, offset, this.#window());
    }
    // Nothing is out and something waits: only a probe will tell when the window opens (RFC 9293 3.8.6.1).
    if (this.#una === this.#max && this.#out.bytes > 0 && this.#retransmitMs === NEVER) this.#retransmitMs = host.wheel.nowMs() + this.#congestion.rtoMs;
    this.#arm();
  }
  /** The peer has room again. */
  goOn(): void {
    this.#push();
  }
  #retransmitOne(): void {
    const n = Math.min(this.#mss, this.#out.bytes), hasFin = n === this.#out.bytes && this.#hasFin && ((this.#max - this.#una) | 0) > n;
    if (n === 0 && !hasFin) return;
    this.#host.counts.nrRetransmits++;
    this.#host.counts.nrFastRetransmits++;
    this.#retransmitMs = this.#host.wheel.nowMs() + this.#congestion.rtoMs;
    this.#emit(TCP.ACK | (hasFin ? TCP.FIN : 0), this.#una, n, 0, this.#window());
  }
  /** The window to be told; its right edge never goes back (RFC 9293 3.8.6), and forward only by steps worth a packet. */
  #window(): number {
    const free = Math.max(0, this.bufferBytes - this.#early.bytes - (this.far?.unsentBytes ?? 0));
    const told = (this.#rcvAdv - this.#rcvNxt) | 0;
    const bytes = free - told >= Math.min(this.bufferBytes / 2, this.#mss) ? free : Math.max(told, 0);
    const window = Math.min(65535, (bytes + (1 << this.#ourShift) - 1) >>> this.#ourShift);
    if (((this.#rcvNxt + (window << this.#ourShift) - this.#rcvAdv) | 0) > 0) this.#rcvAdv = (this.#rcvNxt + (window << this.#ourShift)) | 0;
    return window;
  }
  /** Say that the window has opened, when it had nearly shut. */
  #tellWindow(): void {
    const told = (this.#rcvAdv - this.#rcvNxt) | 0, free = this.bufferBytes - this.#early.bytes - (this.far?.unsentBytes ?? 0);
    if (told < this.bufferBytes / 2 && free - told >= Math.min(this.bufferBytes / 2, 2 * this.#mss)) this.#ack();
  }
  #ack(): void {
    this.#emit(TCP.ACK, this.#edge(), 0, 0, this.#window());
    this.#arm();
  }
  /** The number for a segment without data: behind all that was sent, but where the window is shut not beyond it, or the guest would not take it. */
  #edge(): number {
    return this.#wnd < ((this.#max - this.#una) | 0) ? (this.#una + this.#wnd) | 0 : this.#max;
  }
  #challenge(): void {
    if (this.#host.mayChallenge()) this.#ack();
  }

  #emit(flags: number, seq: number, nBytes: number, offset: number, window: number, options: readonly number[] = []): void {
    const { lan } = this.#host, isBlank = lan.takesBlankChecksum;
    const { bytes, payloadAt } = newSegment({
      source: this.remoteAddress, sourcePort: this.remotePort, destination: this.guestAddress, port: this.guestPort, seq, ack: this.#rcvNxt, flags, window, options,
    }, nBytes);
    if (nBytes) this.#out.copy(offset, nBytes, bytes, payloadAt);
    finishSegment(bytes, isBlank);
    if (flags & TCP.ACK) {
      this.#unackedBytes = 0;
      this.#ackMs = NEVER;
    }
    lan.send(bytes, isBlank ? "blank" : "good", nBytes > this.#mss ? { type: this.#gsoType, mss: this.#mss } : null, this.#station);
  }

  // ---- time

  #arm(): void {
    if (this.state === "closed") return;
    const atMs = Math.min(this.#retransmitMs, this.#ackMs, this.#idleMs);
    if (atMs < NEVER) this.#host.wheel.arm(this.#timer, atMs);
    else this.#host.wheel.disarm(this.#timer);
  }
  #onTimer(nowMs: number): void {
    if (this.#ackMs <= nowMs) this.#ack();
    if (this.#retransmitMs <= nowMs) {
      this.#retransmitMs = NEVER;
      this.#onRetransmit();
    }
    if (this.#isOpen() && this.#idleMs <= nowMs) this.#onIdle(nowMs);
    this.#arm();
  }
  #onRetransmit(): void {
    const host = this.#host, isSyn = this.state === "synSent" || this.state === "synReceived";
    if (!host.lan.hasRoom && !isSyn) {
      // A guest that takes no frames at all is paused, not gone.
      this.#retransmitMs = host.wheel.nowMs() + this.#congestion.rtoMs;
      host.waiting.add(this);
      return;
    }
    if (++this.#nrTries > (isSyn ? SYN_TRIES : RETRIES)) return this.reset();
    host.counts.nrTimeouts++;
    if (isSyn) {
      this.#congestion.backOff();
      return this.#sendSyn(this.state === "synSent" ? TCP.SYN : TCP.SYN | TCP.ACK);
    }
    if (this.#wnd === 0 || this.#una === this.#max) return this.#probe();
    this.#congestion.timedOut(this.#una, this.#max);
    this.#nxt = this.#una;
    this.#push();
  }
  /** One byte beyond a shut window, and its answer says how it stands; or what fits into one that nothing was sent into for being silly. */
  #probe(): void {
    const isFin = this.#out.bytes === 0, n = isFin ? 0 : Math.max(1, Math.min(this.#wnd, this.#out.bytes, this.#mss)), end = (this.#una + Math.max(n, 1)) | 0;
    if (isFin && !this.#hasFin) return;
    this.#host.counts.nrProbes++;
    this.#congestion.backOff();
    this.#retransmitMs = this.#host.wheel.nowMs() + this.#congestion.rtoMs;
    if (((end - this.#max) | 0) > 0) this.#max = end;
    if (this.#wnd > 0 && ((end - this.#nxt) | 0) > 0) this.#nxt = end;
    this.#emit(TCP.ACK | (isFin ? TCP.FIN : 0), this.#una, n, 0, this.#window());
  }
  #onIdle(nowMs: number): void {
    this.#idleMs = NEVER;
    if (this.state === "timeWait") return this.#remove();
    if (this.state === "connecting") {
      this.far?.abort();
      return this.closed("timeout");
    }
    if (++this.#nrTries > KEEPALIVE_TRIES) return this.reset();
    this.#idleMs = nowMs + KEEPALIVE_RETRY_MS;
    this.#emit(TCP.ACK, (this.#una - 1) | 0, 0, 0, this.#window());
  }

  // ---- ending

  #enterTimeWait(): void {
    const isNew = this.state !== "timeWait";
    this.state = "timeWait";
    this.#retransmitMs = this.#ackMs = NEVER;
    this.#idleMs = this.#host.wheel.nowMs() + TIME_WAIT_MS;
    this.#out.clear();
    this.#early.clear();
    if (isNew) this.#host.timeWaits(this);
    this.#arm();
  }
  /** May a SYN with this number begin a new connection in the place of one that waits its time out? RFC 9293 3.10.7.4 */
  isReplacedBy(seq: number): boolean {
    return this.state === "timeWait" && ((seq - this.#rcvNxt) | 0) > 0;
  }
  /** Break both sides. */
  reset(): void {
    if (this.state !== "connecting" && this.state !== "synSent" && this.state !== "closed" && this.state !== "timeWait") {
      this.#host.counts.nrResetsSent++;
      this.#emit(TCP.RST | TCP.ACK, this.#edge(), 0, 0, 0);
    }
    this.abort();
  }
  /** Break the far side and say nothing to the guest. Where both had ended, the far side is left alone: the guest's last bytes may still be on their way out. */
  abort(): void {
    const { far, state } = this;
    this.far = null;
    this.#remove();
    if (state !== "closing" && state !== "lastAck" && state !== "timeWait") far?.abort();
  }
  #remove(): void {
    if (this.state === "closed") return;
    this.state = "closed";
    this.syn = null;
    this.#host.wheel.disarm(this.#timer);
    this.#out.clear();
    this.#early.clear();
    this.#host.gone(this);
  }
}
