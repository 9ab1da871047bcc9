/** For tests: an outside in memory. */
import type { VirtualClock } from "./fixture-clock.ts";
import type { DatagramEvents, Outside, OutsideStream, StreamEvents, StreamFault } from "./outside.ts";

/** A stream outside, seen from the peer's side. */
export class FakeStream implements OutsideStream {
  readonly address: string;
  readonly port: number;
  readonly received: Uint8Array[] = [];
  receivedBytes = 0;
  hasEnded = false;
  isAborted = false;
  isPaused = false;
  unsentBytes = 0;
  /** what a write that waits costs beside its bytes */
  costPerWrite = 0;
  nrWrites = 0;
  onData: ((bytes: Uint8Array) => void) | null = null;
  onEnd: (() => void) | null = null;
  events: StreamEvents | null = null;
  /** whether the peer takes bytes; what it does not take stays unsent */
  isReading = true;
  /** false: what is written waits for the connection */
  isConnected = true;
  #hasPeerEnded = false;
  #isEndTold = false;
  readonly #stuck: Uint8Array[] = [];
  #waiting: Uint8Array[] = [];
  readonly #clock: VirtualClock;

  constructor(clock: VirtualClock, address: string, port: number) {
    this.#clock = clock;
    this.address = address;
    this.port = port;
  }
  write(bytes: Uint8Array): void {
    this.unsentBytes += bytes.length + this.costPerWrite;
    this.nrWrites++;
    this.#stuck.push(bytes);
    if (this.isReading && this.isConnected) this.#clock.after(0.05, () => this.read(this.isReading));
  }
  /** Let the peer take what is there, or stop. */
  read(isReading: boolean): void {
    this.isReading = isReading;
    if (!isReading || this.#stuck.length === 0) return;
    for (const bytes of this.#stuck.splice(0)) {
      this.unsentBytes -= bytes.length + this.costPerWrite;
      this.received.push(bytes);
      this.receivedBytes += bytes.length;
      this.onData?.(bytes);
    }
    this.events?.drained();
    if (this.hasEnded) this.#ended();
  }
  end(): void {
    this.hasEnded = true;
    if (this.#stuck.length === 0) this.#ended();
  }
  #ended(): void {
    this.#clock.after(0, () => {
      this.onEnd?.();
      this.#closeIfDone();
    });
  }
  #closeIfDone(): void {
    if (!this.hasEnded || !this.#isEndTold || this.isAborted || this.#stuck.length > 0) return;
    this.isAborted = true;
    this.events?.closed(null);
  }
  abort(): void {
    this.isAborted = true;
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
    this.#clock.after(0, () => this.#flush());
  }
  #flush(): void {
    while (!this.isPaused && !this.isAborted && this.#waiting.length > 0) this.events?.data(this.#waiting.shift()!);
    if (this.#waiting.length === 0 && this.#hasPeerEnded && !this.isPaused && !this.isAborted) {
      if (!this.#isEndTold) this.events?.ended();
      this.#isEndTold = true;
      this.#closeIfDone();
    }
  }
  /** The peer writes. */
  say(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    if (!this.isPaused) this.#flush();
  }
  get unreadBytes(): number {
    return this.#waiting.reduce((sum, b) => sum + b.length, 0);
  }
  /** The peer will write no more. */
  finish(): void {
    this.#hasPeerEnded = true;
    if (!this.isPaused) this.#flush();
  }
  fail(fault: StreamFault): void {
    if (this.isAborted) return;
    this.isAborted = true;
    this.events?.closed(fault);
  }
}

/** An outside in memory: `onConnect` plays the servers; datagrams come back to whoever `onDatagram` says. */
export class FakeOutside implements Outside {
  readonly clock: VirtualClock;
  readonly streams = new Set<FakeStream>();
  onConnect: (stream: FakeStream) => void = (s) => s.fail("refused");
  onDatagram: (bytes: Uint8Array, address: string, port: number, back: (bytes: Uint8Array, address?: string, port?: number) => void) => void = () => {};
  accepts = new Map<string, (stream: OutsideStream) => StreamEvents | null>();
  boundUdp = new Map<string, DatagramEvents>();
  sentByBound: { bytes: Uint8Array; address: string; port: number }[] = [];
  /** has IPv6 to the world */
  isIpv6 = true;
  /** datagrams to these addresses find no way */
  readonly noRoute = new Set<string>();
  resolverList = [{ address: "192.0.2.53", port: 53 }];
  nrUdpOpen = 0;

  constructor(clock: VirtualClock) {
    this.clock = clock;
  }
  connectTcp(address: string, port: number, events: StreamEvents): OutsideStream {
    const stream = new FakeStream(this.clock, address, port);
    stream.events = events;
    stream.isConnected = false;
    this.streams.add(stream);
    this.clock.after(0.1, () => {
      if (stream.isAborted) return;
      this.onConnect(stream);
      stream.isConnected = true;
      stream.read(stream.isReading);
    });
    return stream;
  }
  hasIpv6() {
    return this.isIpv6;
  }
  openUdp(version: 4 | 6, events: DatagramEvents) {
    let isOpen = true;
    this.nrUdpOpen++;
    return {
      send: (bytes: Uint8Array, address: string, port: number, unreachable?: () => void) => {
        if (address.includes(":") !== (version === 6)) throw new Error(`A datagram to ${address} from a socket for IPv${version}`);
        if (this.noRoute.has(address)) this.clock.after(0.1, () => unreachable?.());
        else this.clock.after(0.1, () => this.onDatagram(bytes, address, port, (b, a = address, p = port) => {
          if (isOpen) events.datagram(b, a, p);
        }));
      },
      close: () => {
        if (isOpen) this.nrUdpOpen--;
        isOpen = false;
      },
    };
  }
  async listenTcp(address: string, port: number, accept: (stream: OutsideStream) => StreamEvents | null) {
    this.accepts.set(`${address}:${port}`, accept);
    return { address, port, close: () => { this.accepts.delete(`${address}:${port}`); } };
  }
  /** A client of the host's connects to a forward. */
  come(at: string): FakeStream {
    const stream = new FakeStream(this.clock, "127.0.0.1", 50000);
    stream.isPaused = true;
    stream.events = this.accepts.get(at)!(stream);
    if (!stream.events) stream.isAborted = true;
    return stream;
  }
  async bindUdp(address: string, port: number, events: DatagramEvents) {
    this.boundUdp.set(`${address}:${port}`, events);
    return {
      address, port, close: () => { this.boundUdp.delete(`${address}:${port}`); },
      send: (bytes: Uint8Array, to: string, toPort: number) => { this.sentByBound.push({ bytes, address: to, port: toPort }); },
    };
  }
  resolvers() {
    return this.resolverList;
  }
}

/** A peer that takes the connection. */
export const accept = (s: FakeStream): void => s.events!.connected();
/** And says again what it hears, to the end. */
export function echo(s: FakeStream): void {
  accept(s);
  s.onData = (b) => s.say(b);
  s.onEnd = () => s.finish();
}
