/** What the router needs of the world beyond: streams and datagrams. `host.node.ts` has Node's sockets; a browser's would go through a relay. */

/** Why a stream could not be or no longer is. `refused`: the peer said no. `unreachable`: no way there. `reset`: the peer or the host broke it. */
export type StreamFault = "refused" | "unreachable" | "timeout" | "reset";

/** What happens to a stream outside. Nothing is told before the call that made the stream has returned, and nothing after `closed`. */
export interface StreamEvents {
  /** of `connectTcp` only, once */
  connected(): void;
  /** Bytes from the peer. They are handed over: nobody changes them afterwards. */
  data(bytes: Uint8Array): void;
  /** `unsentBytes` has fallen. */
  drained(): void;
  /** The peer will send no more. */
  ended(): void;
  /** Last of all; null when both sides had ended. */
  closed(fault: StreamFault | null): void;
}

/** A TCP connection outside. One that `listenTcp` gives is paused and connected. */
export interface OutsideStream {
  /** bytes written that have not left yet, and what it costs to keep them: a byte that waits alone is worth hundreds */
  readonly unsentBytes: number;
  /** Never refuses: who writes watches `unsentBytes`. `bytes` must not change afterwards. */
  write(bytes: Uint8Array): void;
  /** Send no more after what was written. */
  end(): void;
  /** Let go at once, with a reset where the host can. `closed` may or may not follow. */
  abort(): void;
  pause(): void;
  resume(): void;
}

/** What happens to a datagram socket. */
export interface DatagramEvents {
  /** @param address in text, as the host writes it */
  datagram(bytes: Uint8Array, address: string, port: number): void;
  /** The socket is gone. */
  failed(why: string): void;
}
/** A UDP socket outside. */
export interface OutsideUdp {
  /** A datagram that the host has no room for is lost. @param unreachable is told where the host has no way there, perhaps */
  send(bytes: Uint8Array, address: string, port: number, unreachable?: () => void): void;
  close(): void;
}

/** Something that listens on the host, and where. */
export interface Listener {
  readonly address: string;
  readonly port: number;
  close(): void;
}

/** The world beyond the router. Addresses are IPv4 or IPv6 in text, an IPv6 one never with an IPv4 one inside that the host would take it for. */
export interface Outside {
  connectTcp(address: string, port: number, events: StreamEvents): OutsideStream;
  /** A socket on a port of the host's choice, for peers of one family. */
  openUdp(version: 4 | 6, events: DatagramEvents): OutsideUdp;
  /**
   * Listen for the host's side of a forward. `accept` gets each connection and returns who hears its events; null refuses it.
   * @param port 0: the host chooses @throws UserError when it cannot
   */
  listenTcp(address: string, port: number, accept: (stream: OutsideStream) => StreamEvents | null): Promise<Listener>;
  /** @throws UserError when the port cannot be had */
  bindUdp(address: string, port: number, events: DatagramEvents): Promise<Listener & OutsideUdp>;
  /** Whether the host has IPv6 to the world, as far as it knows; asked again and again. */
  hasIpv6(): boolean;
  /** The host's DNS servers, best first. */
  resolvers(): { address: string; port: number }[];
}
