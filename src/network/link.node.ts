/** Links over TCP and Unix sockets. Neither asks who the peer is: TCP is for loopback, a private network or a tunnel, a Unix socket for whom its folder lets in. */
import { addressName, type ByteConnection, type StreamAddress } from "../base/stream.ts";
import { connectSocket, type Listener, listenSocket } from "../storage/socket.node.ts";
import { Link, type LinkOptions } from "./link.ts";
import { connect, type Port } from "./port.ts";

const CONNECT_TIMEOUT_MS = 10_000;
/** Guests that one listener takes in. */
const LINKS_MAX = 64;

/** A link that goes to its peer, again and again until it is closed. */
export const dialLink = (to: StreamAddress, options: Omit<LinkOptions, "dial">): Link => new Link({ ...options, dial: () => connectSocket(to, CONNECT_TIMEOUT_MS) });

/** Listen for a link's peer; who comes later takes the place of who was there. @throws Error when it cannot listen */
export const listenForPeer = (at: StreamAddress, link: Link): Promise<Listener> => listenSocket(at, (connection) => { void link.accept(connection); });

/**
 * Listen for many peers, such as QEMU's guests: each connection is a link of its own, named `name` and a number, plugged into what `attach` gives for it. When it ends, `detach`
 * is told.
 * @throws Error when it cannot listen
 */
export function listenForPeers(
  at: StreamAddress, options: Omit<LinkOptions, "dial">, attach: (name: string) => Port, detach: (port: Port) => void, /** what a connection is before a link speaks on it */ open: (raw: ByteConnection) => Promise<ByteConnection> = (raw) => Promise.resolve(raw),
): Promise<Listener & { readonly links: ReadonlySet<Link> }> {
  const links = new Set<Link>();
  let nr = 0;
  const take = async (raw: ByteConnection): Promise<void> => {
    let connection: ByteConnection;
    try { connection = await open(raw); } catch (e) {
      options.log?.(`${addressName(at)}: ${raw.peerName} is sent away: ${(e as Error).message}`);
      raw.close(true);
      return;
    }
    if (links.size >= LINKS_MAX) {
      options.log?.(`${addressName(at)}: ${connection.peerName} is sent away: ${LINKS_MAX} links are open`);
      connection.close();
      return;
    }
    const link = new Link({ ...options, name: `${options.name}${nr++}` });
    let port: Port | null = null;
    links.add(link);
    try {
      connect(link, (port = attach(link.name)));
      await link.accept(connection);
    } catch (e) {
      options.log?.(`${addressName(at)}: ${connection.peerName} is sent away: ${(e as Error).message}`);
      connection.close();
    }
    links.delete(link);
    link.close();
    if (port) detach(port);
  };
  return listenSocket(at, (connection) => { void take(connection); }).then((listener) => ({
    ...listener, links,
    close: async () => {
      for (const link of links) link.close();
      await listener.close();
    },
  }));
}
