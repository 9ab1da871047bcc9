/** The DNS forwarder on the gateway's address: names of this network are answered here, all others by the host's resolvers, over UDP and TCP. */
import { type Address, putIpv6 } from "./address.ts";
import { Timer, type TimerWheel } from "./timers.ts";
import { type Answer, DNS_TYPE, encodeName, isReplyTo, type Question, RCODE, readQuery, withId, writeReply } from "./dns-message.ts";
import { addressOfReverse, type Names } from "./names.ts";
import type { Packet } from "./packet.ts";
import type { Lan } from "./lan.ts";
import type { Outside, OutsideStream, OutsideUdp, StreamEvents, StreamFault } from "./outside.ts";
import { type Datagram, sendUdp } from "./udp.ts";

export const DNS_PORT = 53; // RFC 1035 4.2
const QUERIES_MAX = 256, QUERIES_PER_GUEST_MAX = 64, TRY_MS = 2500, TRIES_MAX = 4, OWN_TTL_SECONDS = 10, HELD_COST_BYTES = 512;

/** An address as an answer. */
function answerOf(address: Address): Answer {
  const rdata = new Uint8Array(typeof address === "number" ? 4 : 16), view = new DataView(rdata.buffer);
  if (typeof address === "number") view.setUint32(0, address);
  else putIpv6(view, 0, address);
  return { type: typeof address === "number" ? DNS_TYPE.A : DNS_TYPE.AAAA, rdata };
}
/** What the forwarder is made over. */
export type DnsOptions = { readonly lan: Lan; readonly wheel: TimerWheel; readonly outside: Outside; readonly names: Names; readonly random: () => number };

type Query = { readonly key: string; readonly bytes: Uint8Array; readonly question: Question; readonly id: number; readonly p: Packet; readonly port: number;
  nrAsked: number; /** of those, the ones that were waited for */ nrTries: number; /** in a row */ nrUnreached: number; socket: OutsideUdp | null; readonly timer: Timer };

/** Answers or forwards the guests' queries; each forwarded one has a socket and a number of its own, so that a forged answer must guess both. */
export class DnsForwarder {
  readonly #o: DnsOptions;
  readonly #queries = new Map<string, Query>();
  /** by station */
  readonly #perGuest = new Map<number, number>();
  readonly counts = { nrQueries: 0, nrOwn: 0, nrForwarded: 0, nrFailed: 0, nrDropped: 0 };

  constructor(options: DnsOptions) {
    this.#o = options;
  }
  get nrQueries(): number {
    return this.#queries.size;
  }

  /** What is to be answered here: the answer to a name of this network, or an error. @returns the question when it is for a resolver, null for no answer */
  answer(bytes: Uint8Array): Uint8Array | Question | null {
    this.counts.nrQueries++;
    const q = readQuery(bytes);
    if (q === null) return null;
    if (typeof q === "number") return writeReply(bytes, null, q, [], 0);
    const own = q.class === 1 || q.class === 255 ? this.#own(q) : undefined;
    if (own === undefined) return q;
    this.counts.nrOwn++;
    return writeReply(bytes, q, own === null ? RCODE.NXDOMAIN : RCODE.NOERROR, own ?? [], OWN_TTL_SECONDS);
  }
  #own(q: Question): Answer[] | null | undefined {
    const { names } = this.#o;
    const reverse = addressOfReverse(q.name), isAsked = ({ type }: Answer): boolean => q.type === type || q.type === DNS_TYPE.ANY;
    if (reverse !== null) {
      const name = names.nameOf(reverse);
      return name === undefined || name === null ? name : [{ type: DNS_TYPE.PTR, rdata: encodeName(name) }].filter(isAsked);
    }
    const addresses = names.addressesOf(q.name);
    return addresses === undefined || addresses === null ? addresses : addresses.map(answerOf).filter(isAsked);
  }

  /** A guest's datagram to port 53. */
  receive(p: Packet, d: Datagram): void {
    const bytes = p.bytes.subarray(d.from, d.to), answer = this.answer(bytes);
    if (answer === null) return;
    if (answer instanceof Uint8Array) return this.#reply(p, d.sourcePort, answer);
    const key = `${p.source} ${d.sourcePort} ${answer.id}`, nrOfGuest = this.#perGuest.get(p.mac) ?? 0;
    if (this.#queries.has(key)) return;
    if (this.#queries.size >= QUERIES_MAX || nrOfGuest >= QUERIES_PER_GUEST_MAX) {
      this.counts.nrDropped++;
      return;
    }
    const id = this.#o.random() & 0xffff;
    const query: Query = { key, bytes: withId(bytes, id), question: answer, id, p, port: d.sourcePort, nrAsked: 0, nrTries: 0, nrUnreached: 0, socket: null, timer: new Timer(() => {
      query.nrUnreached = 0;
      this.#try(query);
    }) };
    this.#queries.set(key, query);
    this.#perGuest.set(p.mac, nrOfGuest + 1);
    this.counts.nrForwarded++;
    this.#try(query);
  }
  #reply(p: Packet, port: number, bytes: Uint8Array): void {
    sendUdp(this.#o.lan, p.destination, DNS_PORT, p.source, port, bytes, p.mac);
  }
  /** Ask the next resolver, from a port of its own each time. One that cannot be reached gives way at once, and no try is lost by it; where none can, the host may be about to come back. */
  #try(q: Query): void {
    const resolvers = this.#o.outside.resolvers(), resolver = resolvers[q.nrAsked++ % Math.max(1, resolvers.length)];
    q.socket?.close();
    q.socket = null;
    if (!resolver || q.nrTries++ >= TRIES_MAX) {
      this.counts.nrFailed++;
      this.#reply(q.p, q.port, writeReply(withId(q.bytes, q.question.id), q.question, RCODE.SERVFAIL, [], 0));
      return this.#end(q);
    }
    this.#o.wheel.arm(q.timer, this.#o.wheel.nowMs() + TRY_MS);
    const next = (): void => {
      if (q.socket !== socket || ++q.nrUnreached >= resolvers.length) return;
      q.nrTries--;
      this.#try(q);
    };
    const socket = this.#o.outside.openUdp(resolver.address.includes(":") ? 6 : 4, {
      datagram: (bytes, address, port) => {
        if (q.socket !== socket || address !== resolver.address || port !== resolver.port || !isReplyTo(bytes, q.bytes, q.question, q.id)) return;
        this.#reply(q.p, q.port, withId(bytes, q.question.id));
        this.#end(q);
      },
      failed: next,
    });
    q.socket = socket;
    socket.send(q.bytes, resolver.address, resolver.port, next);
  }
  #end(q: Query): void {
    if (!this.#queries.delete(q.key)) return;
    const nr = (this.#perGuest.get(q.p.mac) ?? 1) - 1;
    if (nr > 0) this.#perGuest.set(q.p.mac, nr);
    else this.#perGuest.delete(q.p.mac);
    this.#o.wheel.disarm(q.timer);
    q.socket?.close();
    q.socket = null;
  }
  /** The far end of a guest's TCP connection to port 53. */
  openStream(events: StreamEvents): OutsideStream {
    return new DnsStream(this, this.#o.outside, events);
  }
  close(): void {
    for (const q of [...this.#queries.values()]) this.#end(q);
  }
}

/** Messages with a length in front (RFC 1035 4.2.2). The first that is not answered here opens a connection to a resolver, which then gets all such. */
class DnsStream implements OutsideStream {
  readonly #dns: DnsForwarder;
  readonly #outside: Outside;
  readonly #events: StreamEvents;
  #upstream: OutsideStream | null = null;
  /** the beginning of a message that is not whole yet */
  #rest: Uint8Array = new Uint8Array(0);
  /** what came while paused */
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #isPaused = false;
  #hasEnded = false;
  #isClosed = false;

  constructor(dns: DnsForwarder, outside: Outside, events: StreamEvents) {
    this.#dns = dns;
    this.#outside = outside;
    this.#events = events;
    queueMicrotask(() => {
      if (!this.#isClosed) events.connected();
    });
  }
  get unsentBytes(): number {
    return (this.#upstream?.unsentBytes ?? 0) + this.#held.length * HELD_COST_BYTES + this.#heldBytes;
  }
  write(bytes: Uint8Array): void {
    if (this.#isPaused) {
      // The guest does not read its answers: it gets no more of them, and its window closes.
      this.#held.push(bytes);
      this.#heldBytes += bytes.length;
      return;
    }
    let all = bytes;
    if (this.#rest.length) {
      all = new Uint8Array(this.#rest.length + bytes.length);
      all.set(this.#rest);
      all.set(bytes, this.#rest.length);
    }
    let at = 0;
    while (!this.#isClosed && all.length - at >= 2) {
      const end = at + 2 + ((all[at]! << 8) | all[at + 1]!);
      if (end > all.length) break;
      this.#message(all.subarray(at, end));
      at = end;
    }
    this.#rest = all.slice(at);
  }
  #message(framed: Uint8Array): void {
    const message = framed.subarray(2), answer = this.#dns.answer(message);
    if (answer === null) return this.#close("reset");
    if (!(answer instanceof Uint8Array)) {
      const upstream = this.#upstream ?? this.#connect();
      if (upstream) return upstream.write(framed.slice());
    }
    const reply = answer instanceof Uint8Array ? answer : writeReply(message, answer, RCODE.SERVFAIL, [], 0), out = new Uint8Array(2 + reply.length);
    out[0] = reply.length >>> 8;
    out[1] = reply.length & 255;
    out.set(reply, 2);
    this.#events.data(out);
  }
  #connect(): OutsideStream | null {
    const resolver = this.#outside.resolvers()[0];
    if (!resolver) return null;
    const events = this.#events;
    this.#upstream = this.#outside.connectTcp(resolver.address, resolver.port, {
      connected: () => {},
      data: (bytes) => events.data(bytes),
      drained: () => events.drained(),
      ended: () => events.ended(),
      closed: (fault) => this.#close(fault),
    });
    if (this.#isPaused) this.#upstream.pause();
    return this.#upstream;
  }
  #close(fault: StreamFault | null): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#upstream?.abort();
    this.#upstream = null;
    if (fault === null) this.#events.ended();
    this.#events.closed(fault);
  }
  end(): void {
    this.#hasEnded = true;
    if (this.#held.length > 0) return;
    if (this.#upstream) this.#upstream.end();
    else queueMicrotask(() => this.#close(null));
  }
  abort(): void {
    this.#isClosed = true;
    this.#upstream?.abort();
    this.#upstream = null;
  }
  pause(): void {
    this.#isPaused = true;
    this.#upstream?.pause();
  }
  resume(): void {
    this.#isPaused = false;
    this.#upstream?.resume();
    while (this.#held.length > 0 && !this.#isPaused && !this.#isClosed) {
      const bytes = this.#held.shift()!;
      this.#heldBytes -= bytes.length;
      this.write(bytes);
    }
    if (this.#isClosed || this.#held.length > 0) return;
    this.#events.drained();
    if (this.#hasEnded) this.end();
  }
}
