/**
 * The API at an address: the same actions as at the socket, for those who have a token or a certificate. On the loopback HTTP will do; elsewhere it is TLS, and with a CA for clients
 * a certificate of theirs is their name.
 */
import { readFileSync, realpathSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { createWebSocketStream, type WebSocket, WebSocketServer } from "ws";
import { ApiClient, isLoopback, type Target } from "../../api/client.node.ts";
import { ROLES, type Role, STREAMS, type StreamName } from "../../api/actions.ts";
import { FAULT_STATUS, faultJson, faultOf } from "../../api/fault.ts";
import { apiListener, urlOf } from "../../api/serve.node.ts";
import { UserError } from "../../base/errors.ts";
import { isWithin } from "../machine/bounds.ts";
import type { HostPaths } from "../paths.ts";
import type { Option } from "../args.ts";
import { type Host, tokenHash } from "./host.ts";
import type { HostState } from "./state.ts";

/** Options of the address, which domusd takes and keeps. */
export const HTTP_OPTIONS: Readonly<Record<string, Option>> = {
  http: { value: "ADDR:PORT", help: 'serve the API over HTTP and WebSocket too, as 127.0.0.1:7443; "none": no more. Clients want a token (domusd token NAME ROLE)' },
  "tls-cert": { value: "FILE", help: "the server's certificate, PEM; off the loopback there is no serving without" },
  "tls-key": { value: "FILE", help: "its key" },
  "tls-ca": { value: "FILE", help: "who signs clients' certificates: a client with one needs no token; its role is in the name's OU, else read" },
};
/** Who is trying tokens waits; who tries more at once is turned away. */
const WRONG_MS = 300, MAX_CONNECTIONS = 512, MAX_MESSAGE_BYTES = 1 << 20;

/** Who has said nothing for so long is asked whether he is there, and is let go when the next turn comes without an answer: he may hold a keyboard. */
const KEEP_ALIVE = { keepAlive: true, keepAliveInitialDelay: 60_000 }, PING_MS = 30_000;

/** Where and how to serve. */
export type HttpChoice = { readonly host: string; readonly port: number; readonly cert?: string; readonly key?: string; readonly ca?: string };

/** Check what the options say. @throws UserError naming the remedy */
export function parseHttp(options: ReadonlyMap<string, string>): HttpChoice | null {
  const text = options.get("http");
  if (text === undefined || text === "none") return null;
  const m = /^(?:\[([\da-f:.]+)\]|([\w.-]+)):(\d{1,5})$/i.exec(text), host = m?.[1] ?? m?.[2], port = Number(m?.[3]);
  if (host === undefined || port > 65535) throw new UserError(`Option "--http" wants ADDR:PORT, not "${text}"`);
  const cert = options.get("tls-cert"), key = options.get("tls-key"), ca = options.get("tls-ca");
  if ((cert === undefined) !== (key === undefined)) throw new UserError('Options "--tls-cert" and "--tls-key" come together');
  if (ca !== undefined && cert === undefined) throw new UserError('Option "--tls-ca" wants "--tls-cert" and "--tls-key" too');
  if (!isLoopback(host) && cert === undefined) throw new UserError(`${text} can be reached from other computers: that wants TLS; give "--tls-cert" and "--tls-key", or choose 127.0.0.1`);
  return { host, port, ...(cert === undefined ? {} : { cert, key: key! }), ...(ca === undefined ? {} : { ca }) };
}
const pem = (path: string, what: string): Buffer => { try { return readFileSync(path); } catch (e) { throw new UserError(`${what}: ${path} cannot be read (${(e as NodeJS.ErrnoException).code})`); } };

/** Does another site's page ask? A browser shows its user's certificate whoever's page it is; a token a page must know. */
function isForeign({ headers: { origin, host } }: IncomingMessage): boolean {
  if (origin === undefined) return false;
  try { return new URL(origin).host !== host; } catch { return true; }
}
/** The role of a client: its certificate's, or its token's. */
function roleOf(host: Host, state: HostState, req: IncomingMessage): Role | null {
  const socket = req.socket as Partial<TLSSocket>, peer = socket.authorized ? socket.getPeerCertificate?.() : undefined;
  if (peer?.subject && !isForeign(req)) { const unit = peer.subject.OU, name = Array.isArray(unit) ? unit[0] : unit; return ROLES.find((r) => r === name) ?? "read"; }
  // a browser's WebSocket can send no header: there the token comes as a protocol's name
  const token = /^Bearer ([\w-]{20,128})$/.exec(req.headers.authorization ?? "")?.[1] ?? /(?:^|,)\s*token\.([\w-]{20,128})\s*(?:,|$)/.exec(String(req.headers["sec-websocket-protocol"] ?? ""))?.[1];
  const hash = token === undefined ? null : tokenHash(token), role = hash === null ? null : state.roleOfHash(hash);
  if (hash !== null && role !== null) host.sockets.add(hash, req.socket);
  return role;
}

/**
 * The folders of "--folders", where they truly are. A folder with the daemon's own in it is none: who writes there is the host's ruler.
 * @throws UserError naming the one that cannot be
 */
export function parseFolders(text: string, paths: HostPaths): string[] {
  const real = (folder: string): string => { try { return realpathSync(folder); } catch (e) { throw new UserError(`--folders: ${folder} cannot be had (${(e as NodeJS.ErrnoException).code})`); } };
  return text === "none" ? [] : text.split(":").filter((f) => f !== "").map((given) => {
    const folder = real(given), own = [paths.state, paths.run].map(real).find((o) => isWithin(o, folder) || isWithin(folder, o));
    if (own !== undefined) throw new UserError(`--folders: ${given} and the daemon's own folder ${own} are one in the other; choose a folder beside it`);
    return folder;
  });
}
/** Serve. @param pingMs how often the other end of a WebSocket is asked @returns the server @throws UserError where the address or a file cannot be had */
export async function serveHttp(host: Host, state: HostState, choice: HttpChoice, pingMs = PING_MS): Promise<Server> {
  const role = async (req: IncomingMessage): Promise<Role | null> => {
    const found = roleOf(host, state, req);
    if (found === null && (req.headers.authorization || req.headers["sec-websocket-protocol"])) await new Promise((go) => setTimeout(go, WRONG_MS));
    return found;
  };
  const { request, upgrade } = apiListener(host.served(role));
  const server = choice.cert === undefined ? createServer(KEEP_ALIVE, request)
    : (createTlsServer({ ...KEEP_ALIVE, cert: pem(choice.cert, "--tls-cert"), key: pem(choice.key!, "--tls-key"), minVersion: "TLSv1.2", ...(choice.ca === undefined ? {} : { ca: pem(choice.ca, "--tls-ca"), requestCert: true, rejectUnauthorized: false }) }, request) as unknown as Server);
  server.maxConnections = MAX_CONNECTIONS;
  const sockets = new WebSocketServer({ noServer: true, maxPayload: MAX_MESSAGE_BYTES, handleProtocols: (protocols) => [...protocols].find((p) => !p.startsWith("token.")) ?? [...protocols][0] ?? false });
  server.on("upgrade", (req: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on("error", () => {});
    if (req.headers.upgrade?.toLowerCase() !== "websocket") return upgrade(req, socket, head);
    void (async () => {
      const url = urlOf(req), name = /^\/v1\/streams\/([\w.]+)$/.exec(url.pathname)?.[1], isStream = name !== undefined && Object.hasOwn(STREAMS, name), isEvents = url.pathname === "/v1/events";
      const may = isStream || isEvents ? await role(req) : null, needed = isStream ? STREAMS[name as StreamName].role : "read";
      if (!isStream && !isEvents) return socket.end("HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n");
      if (may === null || ROLES.indexOf(may) < ROLES.indexOf(needed)) return socket.end(`HTTP/1.1 ${may === null ? "401 Unauthorized" : "403 Forbidden"}\r\nConnection: close\r\n\r\n`);
      sockets.handleUpgrade(req, socket, head, (ws) => {
        ws.on("error", () => {});
        keepAsking(ws, pingMs);
        if (isEvents) tellEvents(host, ws, url.searchParams.get("since"));
        else void joinStream(host, ws, name as StreamName, url.searchParams, may);
      });
    })().catch((e) => { socket.end(`HTTP/1.1 ${FAULT_STATUS[faultOf(e).code]} Refused\r\nConnection: close\r\n\r\n`); });
  });
  await new Promise<void>((done, failed) => {
    server.once("error", (e: NodeJS.ErrnoException) => failed(new UserError(`${choice.host}:${choice.port} cannot be served: ${e.code ?? e.message}`)));
    server.listen(choice.port, choice.host, done);
  });
  const at = server.address(), port = at !== null && typeof at === "object" ? at.port : choice.port;
  host.http = `${choice.cert === undefined ? "http" : "https"}://${isIP(choice.host) === 6 ? `[${choice.host}]` : choice.host}:${port}`;
  return server;
}

/** Ask now and then whether the other end is there; end the connection when it is not. */
function keepAsking(ws: WebSocket, pingMs: number): void {
  let isThere = true;
  ws.on("pong", () => { isThere = true; });
  const asking = setInterval(() => {
    if (!isThere) { ws.terminate(); return; }
    isThere = false;
    ws.ping();
  }, pingMs);
  ws.on("close", () => clearInterval(asking));
}
/** Events, a message each. Who does not read them is let go. */
function tellEvents(host: Host, ws: WebSocket, since: string | null): void {
  const stop = host.events.listen((e) => { if (ws.bufferedAmount > MAX_MESSAGE_BYTES) ws.terminate(); else ws.send(JSON.stringify(e)); }, since !== null && /^\d{1,15}$/.test(since) ? Number(since) : undefined);
  ws.on("close", stop);
}
/** A stream of the machine's as binary messages; a refusal is the closing's reason. */
async function joinStream(host: Host, ws: WebSocket, name: StreamName, query: URLSearchParams, role: Role): Promise<void> {
  const messages = createWebSocketStream(ws);        // what comes before the machine has answered waits in it
  messages.on("error", () => ws.terminate());
  try {
    const { connection } = await new ApiClient({ ...(await host.machine.client()).target, folders: host.foldersFor(role) } as Target).openStream(name, Object.fromEntries(query));
    if (ws.readyState !== ws.OPEN) { connection.destroy(); return; }
    for (const end of [connection, messages]) end.on("error", () => { connection.destroy(); ws.terminate(); });
    connection.pipe(messages);
    messages.pipe(connection);
    connection.on("close", () => ws.close(1000));
    ws.on("close", () => connection.destroy());
  } catch (e) {
    ws.close(4000, JSON.stringify(faultJson(faultOf(e))).slice(0, 120));
  }
}
