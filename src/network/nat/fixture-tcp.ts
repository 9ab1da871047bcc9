/** For tests: a TCP that shares nothing with the router's. It goes back to the first byte when its timer runs out, and knows no congestion. */
import type { Address } from "./address.ts";
import type { SimGuest } from "./fixture.ts";

const FIN = 1, SYN = 2, RST = 4, ACK = 16, RTO_MS = 300;

/** A guest's side of a connection. */
export class SimTcp {
  readonly guest: SimGuest;
  readonly port: number;
  readonly remote: Address;
  readonly remotePort: number;
  state: "opening" | "open" | "closed" = "opening";
  /** how it ended, or null */
  end: "closed" | "reset" | "icmp" | null = null;
  isReading = true;
  hasPeerEnded = false;
  readonly received: Uint8Array[] = [];
  receivedBytes = 0;
  unreadBytes = 0;
  onData: ((bytes: Uint8Array) => void) | null = null;
  readonly isActive: boolean;
  /** bytes that are not acknowledged, at the end of a store that grows to twice its need */
  #out = new Uint8Array(0);
  #wantsEnd = false;
  readonly #iss: number;
  #una: number;
  #nxt: number;
  #isFinSent = false;
  #isFinAcked = false;
  #peerWindow = 0;
  #peerShift = 0;
  #ownShift: number;
  #peerMss = 536;
  readonly #ownMss: number;
  rcvNxt = 0;
  readonly #early = new Map<number, Uint8Array>();
  #cancelTimer: (() => void) | null = null;

  constructor(guest: SimGuest, port: number, remote: Address, remotePort: number, isActive: boolean) {
    this.guest = guest;
    this.port = port;
    this.remote = remote;
    this.remotePort = remotePort;
    this.isActive = isActive;
    this.#ownMss = guest.mss - (typeof remote === "bigint" ? 20 : 0);
    this.#iss = this.#una = this.#nxt = Math.floor(guest.random() * 2 ** 32) | 0;
    this.#ownShift = guest.options.shift ?? 4;
    if (isActive) this.#syn();
  }
  #syn(): void {
    this.#nxt = (this.#iss + 1) | 0;
    this.#send(this.isActive ? SYN : SYN | ACK, this.#iss, new Uint8Array(0), [2, 4, this.#ownMss >>> 8, this.#ownMss & 255, 1, 3, 3, this.#ownShift]);
    this.#timer();
  }
  #timer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = this.guest.clock.after(RTO_MS, () => {
      this.#cancelTimer = null;
      if (this.state === "closed") return;
      if (this.state === "opening") return this.#syn();
      this.#nxt = this.#una;
      this.#isFinSent = false;
      this.#push(true);
    });
  }
  write(bytes: Uint8Array): void {
    const out = this.#out, length = out.length + bytes.length;
    if (out.byteOffset + length <= out.buffer.byteLength) this.#out = new Uint8Array(out.buffer, out.byteOffset, length);
    else {
      this.#out = new Uint8Array(new ArrayBuffer(2 * length), 0, length);
      this.#out.set(out);
    }
    this.#out.set(bytes, length - bytes.length);
    this.#push(false);
  }
  close(): void {
    this.#wantsEnd = true;
    this.#push(false);
  }
  abort(): void {
    this.#send(RST | ACK, this.#nxt, new Uint8Array(0));
    this.#over("reset");
  }
  read(isReading: boolean): void {
    this.isReading = isReading;
    if (!isReading) return;
    this.unreadBytes = 0;
    this.#send(ACK, this.#nxt, new Uint8Array(0));
  }
  get unsentBytes(): number {
    return this.#out.length;
  }
  /** the number of the next byte it would send */
  get next(): number {
    return this.#nxt;
  }
  #over(how: "closed" | "reset" | "icmp"): void {
    this.end ??= how;
    this.state = "closed";
    this.#cancelTimer?.();
    if (how === "closed") this.guest.clock.after(2000, () => this.guest.forget(this));
    else this.guest.forget(this);
  }
  unreachable(): void {
    if (this.state === "opening") this.#over("icmp");
  }
  #push(isTimeout: boolean): void {
    if (this.state !== "open" || this.#isFinAcked) return;
    const limit = Math.min(this.#peerWindow, 256 << 10), size = this.guest.options.gso ? Math.max(1, Math.floor(60_000 / this.#peerMss)) * this.#peerMss : this.#peerMss;
    for (;;) {
      const offset = (this.#nxt - this.#una) | 0, left = this.#out.length - offset;
      let n = Math.min(size, left, Math.max(0, limit - offset));
      if (n <= 0 && left > 0 && isTimeout && offset === 0) n = 1;
      if (n <= 0) break;
      isTimeout = false;
      const seq = this.#nxt;
      this.#nxt = (this.#nxt + n) | 0;
      this.#send(ACK, seq, this.#out.slice(offset, offset + n));
    }
    if (this.#wantsEnd && !this.#isFinSent && ((this.#nxt - this.#una) | 0) === this.#out.length) {
      this.#isFinSent = true;
      const seq = this.#nxt;
      this.#nxt = (this.#nxt + 1) | 0;
      this.#send(FIN | ACK, seq, new Uint8Array(0));
    }
    if ((this.#out.length > 0 || this.#isFinSent) && !this.#cancelTimer) this.#timer();
  }
  #send(flags: number, seq: number, data: Uint8Array, options: number[] = []): void {
    const free = Math.max(0, (this.guest.options.windowBytes ?? 256 << 10) - this.unreadBytes), window = Math.min(65535, flags & SYN ? free : free >>> this.#ownShift);
    this.guest.sendTcp(this.port, this.remote, this.remotePort, flags, seq, flags & ACK ? this.rcvNxt : 0, window, options, data, data.length > this.#peerMss ? this.#peerMss : 0);
  }
  receive(bytes: Uint8Array, view: DataView, at: number, end: number): void {
    const seq = view.getInt32(at + 4), ack = view.getInt32(at + 8), flags = bytes[at + 13]!, dataAt = at + (bytes[at + 12]! >>> 4) * 4;
    if (this.state === "closed") {
      if (!(flags & RST) && (flags & FIN || end > dataAt)) this.#send(ACK, this.#nxt, new Uint8Array(0));
      return;
    }
    if (flags & RST) {
      const isRight = this.state === "opening" && this.isActive ? flags & ACK && ack === this.#nxt : seq === this.rcvNxt;
      if (isRight) this.#over("reset");
      return;
    }
    if (this.state === "opening") {
      if (flags & SYN) {
        if (this.isActive && ack !== this.#nxt) return;
        let hasShift = false;
        for (let o = at + 20; o < dataAt; o += bytes[o]! <= 1 ? 1 : bytes[o + 1]!) {
          if (bytes[o] === 2) this.#peerMss = view.getUint16(o + 2);
          if (bytes[o] === 3) {
            hasShift = true;
            this.#peerShift = bytes[o + 2]!;
          }
        }
        if (!hasShift) this.#ownShift = 0;
        this.rcvNxt = (seq + 1) | 0;
        this.#peerWindow = view.getUint16(at + 14);
        if (!this.isActive) return this.#syn();
      } else if (this.isActive || ack !== this.#nxt) return;
      this.#cancelTimer?.();
      this.#cancelTimer = null;
      this.state = "open";
      this.#una = ack;
      if (flags & SYN) {
        this.#send(ACK, this.#nxt, new Uint8Array(0));
        return this.#push(false);
      }
    } else if (flags & SYN) return this.#send(ACK, this.#nxt, new Uint8Array(0));
    if (flags & ACK && ((ack - this.#una) | 0) >= 0 && ((ack - this.#una) | 0) <= this.#out.length + 1) {
      const news = (ack - this.#una) | 0;
      if (news > this.#out.length && this.#wantsEnd) this.#isFinAcked = true;
      if (news > 0) {
        this.#out = this.#out.subarray(Math.min(news, this.#out.length));
        this.#una = ack;
        if (((this.#nxt - ack) | 0) < 0) this.#nxt = ack;
        this.#cancelTimer?.();
        this.#cancelTimer = null;
      }
      this.#peerWindow = view.getUint16(at + 14) << this.#peerShift;
      this.#push(false);
    }
    const isOld = dataAt === end && ((seq - this.rcvNxt) | 0) < 0, isOver = this.unreadBytes + end - dataAt > (this.guest.options.windowBytes ?? 256 << 10);
    if (isOld || (isOver && end > dataAt)) this.#send(ACK, this.#nxt, new Uint8Array(0));
    else if (dataAt < end || flags & FIN) this.#take(seq, bytes.slice(dataAt, end), (flags & FIN) !== 0);
    if (this.hasPeerEnded && this.#isFinAcked) this.#over("closed");
  }
  #take(seq: number, data: Uint8Array, hasFin: boolean): void {
    const offset = (this.rcvNxt - seq) | 0;
    if (offset < 0) {
      if (!this.guest.options.forgetsOutOfOrder && !hasFin && data.length) this.#early.set(seq, data);
    } else if (offset <= data.length) {
      this.#deliver(data.subarray(offset));
      for (let more = this.#early.get(this.rcvNxt); more; more = this.#early.get(this.rcvNxt)) {
        this.#early.delete(this.rcvNxt);
        this.#deliver(more);
      }
      if (hasFin && !this.hasPeerEnded && ((seq + data.length - this.rcvNxt) | 0) === 0) {
        this.rcvNxt = (this.rcvNxt + 1) | 0;
        this.hasPeerEnded = true;
      }
    }
    this.#send(ACK, this.#nxt, new Uint8Array(0));
  }
  #deliver(data: Uint8Array): void {
    if (data.length === 0) return;
    this.rcvNxt = (this.rcvNxt + data.length) | 0;
    this.received.push(data);
    this.receivedBytes += data.length;
    if (!this.isReading) this.unreadBytes += data.length;
    this.onData?.(data);
  }
}
