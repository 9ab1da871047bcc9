/** The router's outside on Node: sockets of the process that runs it. */
import dgram from "node:dgram";
import dns from "node:dns";
import net from "node:net";
import { UserError } from "../../base/errors.ts";
import { formatAddress, parseAddress } from "./address.ts";
import type { DatagramEvents, Listener, Outside, OutsideStream, OutsideUdp, StreamEvents, StreamFault } from "./outside.ts";

/** Sockets open at a time; beyond it connections are refused and datagrams lost, so that guests cannot take the process's last descriptor. */
const SOCKETS_MAX = 20_000, DATAGRAMS_QUEUED_MAX = 64, CONNECT_MS = 75_000;
/** What Node keeps for a write that waits, beside its bytes. */
const WRITE_COST_BYTES = 512;
/** An idle connection's peer is asked after this long whether it lives: the guest's own question goes no further than the router. */
const KEEPALIVE_MS = 600_000;
/** What connections listened for wait for before they are accepted (listen(2)). */
const BACKLOG = 511;

/** Options for hostOutside. */
export type HostOptions = {
  /** instead of the resolvers that the host is configured with, as node:dns writes them: "9.9.9.9", "127.0.0.1:5353" */
  readonly resolvers?: readonly string[];
};

function faultOf(error: NodeJS.ErrnoException | null): StreamFault {
  switch (error?.code) {
    case "ECONNREFUSED": return "refused";
    case "EHOSTUNREACH": case "ENETUNREACH": case "EADDRNOTAVAIL": case "EAFNOSUPPORT": case "EACCES": case "EPERM": return "unreachable";
    case "ETIMEDOUT": return "timeout";
    default: return "reset";
  }
}
/** "1.2.3.4" or "1.2.3.4:53", "2001:db8::53" or "[2001:db8::53]:53", as node:dns writes them, and people in longer forms. @returns the address as datagrams' senders are written; null for what is none */
function resolverOf(text: string): { address: string; port: number } | null {
  const [, bracketed, v4, port = "53"] = /^(?:\[([^\]]+)\]|(\d+\.\d+\.\d+\.\d+))(?::(\d+))?$/.exec(text) ?? [], given = bracketed ?? v4 ?? text, address = parseAddress(given);
  if (bracketed === undefined ? !net.isIP(given) : !net.isIPv6(bracketed)) return null;
  return { address: address === null ? given : formatAddress(address), port: Number(port) };
}

/** Somewhere in the world: nothing is sent there. */
const WORLD = { address: "2000::1", port: 53 } as const;
const LOOK_MS = 10_000;
/**
 * Whether the kernel would send to the world over IPv6, and from an address that the world can answer: connect(2) of a datagram socket asks its routes and sends nothing.
 * Hosts with private addresses and a translator of their own are not found so.
 */
class Ipv6Look {
  #has = false;
  #atMs = Number.NEGATIVE_INFINITY;
  /** What the last look found; a new one is begun where that was long ago. */
  get has(): boolean {
    if (performance.now() - this.#atMs > LOOK_MS) this.#look();
    return this.#has;
  }
  #look(): void {
    const socket = dgram.createSocket("udp6"), found = (has: boolean): void => {
      this.#has = has;
      socket.close();
    };
    this.#atMs = performance.now();
    socket.unref();
    socket.once("error", () => found(false));
    socket.once("connect", () => found(/^(?!2002:|2001:(?:0:|:))[23]/.test(socket.address().address)));
    socket.connect(WORLD.port, WORLD.address);
  }
}

class HostStream implements OutsideStream {
  readonly #socket: net.Socket;
  #isAborted = false;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEPALIVE_MS);
  }
  /** Begin to tell; until then nothing is lost, as Node tells nothing before the next turn. */
  tell(events: StreamEvents): void {
    const socket = this.#socket;
    let error: NodeJS.ErrnoException | null = null;
    socket.on("connect", () => events.connected());
    socket.on("data", (bytes) => {
      if (typeof bytes !== "string") events.data(bytes);
    });
    socket.on("end", () => events.ended());
    socket.on("error", (e) => { error = e; });
    socket.on("close", () => {
      if (!this.#isAborted) events.closed(error || !socket.readableEnded || !socket.writableFinished ? faultOf(error) : null);
    });
    this.#written = () => {
      this.#nrWrites--;
      if (!this.#isAborted) events.drained();
    };
  }
  #written = () => {};
  #nrWrites = 0;
  get unsentBytes(): number {
    return this.#socket.writableLength + this.#nrWrites * WRITE_COST_BYTES;
  }
  write(bytes: Uint8Array): void {
    if (!this.#socket.writable) return;
    this.#nrWrites++;
    this.#socket.write(bytes, this.#written);
  }
  end(): void {
    this.#socket.end();
  }
  abort(): void {
    this.#isAborted = true;
    if (this.#socket.connecting) this.#socket.destroy();
    else this.#socket.resetAndDestroy();
  }
  pause(): void {
    this.#socket.pause();
  }
  resume(): void {
    this.#socket.resume();
  }
}

class HostUdp implements OutsideUdp {
  readonly #socket: dgram.Socket;
  #nrQueued = 0;
  #isClosed = false;

  constructor(socket: dgram.Socket, events: DatagramEvents) {
    this.#socket = socket;
    socket.on("message", (bytes, from) => {
      if (!this.#isClosed) events.datagram(bytes, from.address, from.port);
    });
    socket.on("error", (e) => {
      if (this.#isClosed) return;
      this.close();
      events.failed(e.message);
    });
  }
  send(bytes: Uint8Array, address: string, port: number, unreachable?: () => void): void {
    if (this.#isClosed || this.#nrQueued >= DATAGRAMS_QUEUED_MAX) return;
    this.#nrQueued++;
    // What cannot be sent is lost, like any datagram.
    this.#socket.send(bytes, port, address, (error) => {
      this.#nrQueued--;
      if (error && faultOf(error) === "unreachable") unreachable?.();
    });
  }
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.close();
  }
}

/** The outside of a NatNetwork that runs in Node. */
export function hostOutside(options: HostOptions = {}): Outside {
  let nrSockets = 0;
  const counted = <T extends net.Socket | dgram.Socket>(socket: T): T => {
    nrSockets++;
    socket.once("close", () => { nrSockets--; });
    return socket;
  };
  const lost: OutsideUdp = { send: () => {}, close: () => {} };
  const resolverTexts = options.resolvers, ipv6 = new Ipv6Look();

  return {
    connectTcp(address, port, events) {
      const socket = counted(new net.Socket({ allowHalfOpen: true })), stream = new HostStream(socket);
      stream.tell(events);
      if (nrSockets > SOCKETS_MAX) {
        socket.destroy(Object.assign(new Error("Too many sockets"), { code: "ETIMEDOUT" }));
        return stream;
      }
      const limit = setTimeout(() => socket.destroy(Object.assign(new Error("No answer"), { code: "ETIMEDOUT" })), CONNECT_MS);
      socket.once("connect", () => clearTimeout(limit)).once("close", () => clearTimeout(limit));
      socket.connect({ host: address, port, family: net.isIPv6(address) ? 6 : 4 });
      return stream;
    },
    openUdp(version, events) {
      if (nrSockets >= SOCKETS_MAX) return lost;
      const socket = counted(dgram.createSocket(version === 4 ? { type: "udp4" } : { type: "udp6", ipv6Only: true })), udp = new HostUdp(socket, events);
      socket.bind(0);
      return udp;
    },
    listenTcp: (address, port, accept) => new Promise<Listener>((resolve, reject) => {
      const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
        const stream = new HostStream(counted(socket)), events = nrSockets > SOCKETS_MAX ? null : accept(stream);
        if (events) return stream.tell(events);
        socket.on("error", () => {});
        stream.abort();
      });
      const failed = (e: Error) => reject(new UserError(`Cannot listen on TCP ${address} port ${port}: ${e.message}`));
      server.once("error", failed);
      server.listen({ host: address, port, backlog: BACKLOG, exclusive: true }, () => {
        server.off("error", failed);
        // An accept that fails, for want of descriptors say, is that connection's loss only.
        server.on("error", () => {});
        const at = server.address() as net.AddressInfo;
        resolve({ address: at.address, port: at.port, close: () => { server.close(); } });
      });
    }),
    bindUdp: (address, port, events) => new Promise((resolve, reject) => {
      const socket = counted(dgram.createSocket(net.isIPv6(address) ? "udp6" : "udp4"));
      const failed = (e: Error) => {
        socket.close();
        reject(new UserError(`Cannot listen on UDP ${address} port ${port}: ${e.message}`));
      };
      socket.once("error", failed);
      socket.bind({ address, port, exclusive: true }, () => {
        socket.off("error", failed);
        const udp = new HostUdp(socket, events), at = socket.address();
        resolve({ address: at.address, port: at.port, send: (b, a, p) => udp.send(b, a, p), close: () => udp.close() });
      });
    }),
    hasIpv6: () => ipv6.has,
    // Those over IPv4 first: a host that lists others may have no way to them, and DNS over TCP tries the first alone.
    resolvers: () => (resolverTexts ?? dns.getServers()).map(resolverOf).filter((r) => r !== null).sort((a, b) => Number(net.isIPv6(a.address)) - Number(net.isIPv6(b.address))),
  };
}
