/** A disk over NBD: `openNbd` connects, shakes hands and gives a `Disk` that outlives its connections (peer.ts); `listNbd` asks a server what it has. */
import type { ByteConnection, Connect } from "../../base/stream.ts";
import { DiskError } from "../disk.ts";
import { asDiskError, PeerDisk, type PeerPatience } from "../peer.ts";
import { NbdHandshake, type NbdListed } from "./handshake.ts";
import { NbdLink } from "./link.ts";
import { type NbdAddress, nbdUri, parseNbdUri } from "./uri.ts";

/** `connect` opens the connection (socket.node.ts, or a tunnel). */
export type NbdOptions = PeerPatience & { connect: Connect };

/** Connect, greet, do `work`; all of it in `timeoutMs`. The connection stays open when `work` succeeds. */
async function withHandshake<T>(address: NbdAddress, connect: Connect, timeoutMs: number, work: (handshake: NbdHandshake, connection: ByteConnection) => Promise<T>): Promise<T> {
  const name = nbdUri(address), until = performance.now() + timeoutMs;
  let connection: ByteConnection;
  try { connection = await connect(address.at, timeoutMs); } catch (e) { throw asDiskError(e, name); }
  const handshake = new NbdHandshake(connection, name);
  let timedOut = false;
  const timer = setTimeout(() => { timedOut = true; connection.close(); }, Math.max(1, until - performance.now()));
  try {
    await handshake.greet();
    return await work(handshake, connection);
  } catch (e) {
    connection.close();
    throw timedOut ? new DiskError("gone", `${name}: the server did not finish the handshake in ${timeoutMs} ms`) : asDiskError(e, name);
  } finally {
    clearTimeout(timer);
  }
}

/** A disk on an NBD server. @param at a URI, or its parts @throws DiskError `gone`, `missing`, `denied`, `unsupported`, `io`; UserError of a bad URI */
export function openNbd(at: string | NbdAddress, options: NbdOptions): Promise<PeerDisk> {
  const address = typeof at === "string" ? parseNbdUri(at) : at, name = nbdUri(address);
  return PeerDisk.open(name, "nbd", (timeoutMs) => withHandshake(address, options.connect, timeoutMs, async (handshake, connection) =>
    new NbdLink(name, connection, handshake.reader, await handshake.go(address.exportName))), options);
}

/** Names and descriptions of a server's exports. @throws DiskError */
export function listNbd(at: string | NbdAddress, options: Pick<NbdOptions, "connect" | "connectTimeoutMs">): Promise<NbdListed[]> {
  const address = typeof at === "string" ? parseNbdUri(at) : at;
  return withHandshake(address, options.connect, options.connectTimeoutMs ?? 10_000, async (handshake, connection) => {
    const found = await handshake.list();
    await handshake.abort();
    connection.close(true);
    return found;
  });
}
