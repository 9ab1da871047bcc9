/** domusd: what is the host's it answers, what is the machine's it hands on. */
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { ActionName, Params, Role, StreamName } from "../../api/actions.ts";
import { EventLog } from "../../api/events.ts";
import { ApiFault, faultJson, FAULT_STATUS } from "../../api/fault.ts";
import { openApi } from "../../api/openapi.ts";
import { configOf } from "../../api/schema.ts";
import { type Folders, foldersHeader } from "../../api/folders.ts";
import { type Handlers, type Served, TASK_HEADER } from "../../api/serve.node.ts";
import { Tasks } from "../../api/tasks.ts";
import type { Log } from "../log.ts";
import type { HostPaths } from "../paths.ts";
import { MACHINE, MachineKeeper } from "./machines.ts";
import { Metrics } from "./metrics.ts";
import type { HostState } from "./state.ts";

/** The house's version. */
export const VERSION: string = (JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as { version: string }).version;
/** A token's secret is not kept: this is. */
export const tokenHash = (token: string): string => createHash("sha256").update(token).digest("hex");
const TOKEN_BYTES = 32;
/** An answer leaves before its connection is ended. */
const ANSWER_MS = 50;

/** Connections by the token that was shown on them: they end with it. */
class TokenSockets {
  readonly #sockets = new Map<string, Set<Socket>>();
  add(hash: string, socket: Socket): void {
    const known = this.#sockets.get(hash) ?? new Set();
    this.#sockets.set(hash, known);
    if (known.has(socket) || socket.destroyed) return;
    known.add(socket);
    socket.once("close", () => {
      known.delete(socket);
      if (known.size === 0 && this.#sockets.get(hash) === known) this.#sockets.delete(hash);
    });
  }
  end(hash: string): void { for (const socket of [...this.#sockets.get(hash) ?? []]) socket.destroy(); }
}

/** The daemon's whole: its state, its machine, its events and figures. */
export class Host {
  readonly events = new EventLog();
  readonly tasks = new Tasks();
  readonly machine: MachineKeeper;
  readonly metrics = new Metrics();
  readonly sockets = new TokenSockets();
  readonly #state: HostState;
  readonly #paths: HostPaths;
  readonly #log: Log;
  readonly #startedMs = Date.now();
  #lastUseMs = Date.now();
  /** streams and actions that the machine is at */
  #nrOpen = 0;
  /** where HTTP is served, for the status */
  http: string | null = null;
  /** whose files those may name over HTTP who do not rule the host; whole and without symbolic links */
  folders: readonly string[] = [];
  /** called when somebody asks the daemon to end */
  onStop: () => void = () => {};

  constructor(state: HostState, paths: HostPaths, log: Log) {
    this.#state = state;
    this.#paths = paths;
    this.#log = log;
    this.machine = new MachineKeeper(state, paths, this.events, log);
  }

  /** What every socket serves; `role` says what a client of that socket may. */
  served(role?: (req: IncomingMessage) => Role | null | Promise<Role | null>): Served {
    return {
      handlers: this.#handlers(), tasks: this.tasks, events: this.events, ...(role ? { role } : {}),
      elsewhere: { action: (name, body, params, res, role) => this.#forward(name, body, params, res, role), stream: (name, req, socket, head, role) => this.#join(name, req, socket, head, role) },
      pages: {
        "/openapi.json": { role: null, type: "application/json", text: () => `${JSON.stringify(openApi(VERSION), null, 1)}\n` },
        "/metrics": { role: "read", type: "text/plain; version=0.0.4", text: () => this.metrics.text(this.machine) },
        "/": { role: null, type: "application/json", text: () => `${JSON.stringify({ name: "domus", version: VERSION, openapi: "/openapi.json" })}\n` },
      },
      log: (entry) => {
        this.#lastUseMs = Date.now();
        this.metrics.count(entry.action, entry.status, entry.ms);
        this.#log(entry.status >= 500 ? "warn" : "info", entry.action, { ...entry });
      },
    };
  }
  #handlers(): Handlers {
    const state = this.#state;
    return {
      "host.status": () => {
        const row = this.machine.row, machine = { name: MACHINE, pid: row?.pid ?? 0, state: this.machine.state, socket: row?.socket ?? "", xenstore: row?.xenstore ?? "", startedMs: row?.startedMs ?? 0 };
        return { version: VERSION, pid: process.pid, startedMs: this.#startedMs, state: this.#paths.state, machines: [machine], lost: state.lost(), http: this.http };
      },
      "host.acknowledge": () => { state.forgetLost(); return {}; },
      "host.configs": () => state.domains().map(({ name, uuid, domid, state: is, config }) => ({ name, uuid, domid, state: is, config })),
      "host.stop": async ({ isForced, keepMachine }) => {
        if (!keepMachine && !isForced && this.machine.state !== "lost") {        // one of an earlier daemon may be sought still, and has domains
          const client = await this.machine.client().catch(() => null), domains = client ? (await client.call("domain.list", {})).filter((d) => d.domid !== 0) : [];
          if (domains.length) throw new ApiFault("busy", `${domains.map((d) => d.name).join(", ")} would end with the machine; shut ${domains.length > 1 ? "them" : "it"} down first, or say that you mean it`);
        }
        if (!keepMachine) await this.machine.end();
        setTimeout(() => this.onStop(), ANSWER_MS);
        return {};
      },
      "token.create": ({ name, role }) => {
        const token = randomBytes(TOKEN_BYTES).toString("base64url");
        if (!state.putToken({ name, hash: tokenHash(token), role, createdMs: Date.now() })) throw new ApiFault("exists", `There is a token named "${name}" already`);
        return { token };
      },
      "token.list": () => state.tokens().map(({ name, role, createdMs }) => ({ name, role, createdMs })),
      "token.remove": ({ name }) => {
        const token = state.tokens().find((t) => t.name === name);
        if (!token || !state.dropToken(name)) throw new ApiFault("notfound", `There is no token named "${name}"`);
        setTimeout(() => this.sockets.end(token.hash), ANSWER_MS);
        return {};
      },
    };
  }

  /** Nobody uses it: how long, in ms; 0 while somebody listens or a domain is there. */
  idleMs(): number { return this.#nrOpen > 0 || this.events.nrListeners > 0 || this.#state.domains().length > 0 ? 0 : Date.now() - this.#lastUseMs; }

  /** Whose files a client of that role may name; at the Unix socket all are "admin". */
  foldersFor(role: Role): Folders { return role === "admin" ? null : this.folders; }
  /** Hand an action on to the machine, and its answer back as it comes. */
  async #forward(name: ActionName, body: Buffer, params: unknown, res: ServerResponse, role: Role): Promise<void> {
    const folders = this.foldersFor(role);
    if (folders && name === "domain.migrate" && (params as Params<"domain.migrate">).tls) throw new ApiFault("forbidden", 'Certificates of the host are named by the role "admin"; the daemon shows its own');
    const client = await this.machine.client(), { socketPath } = client.target as { socketPath: string };
    const config = name === "domain.create" ? configOf((params as Params<"domain.create">).config as never) : null;
    if (config) this.#state.noteCreating(config, MACHINE);
    if (name === "domain.migrate") body = Buffer.from(JSON.stringify({ ...(params as object), ...this.#identity() }));
    let isBroken = false, answer: IncomingMessage | null = null as IncomingMessage | null;
    this.#nrOpen++;
    try {
      await new Promise<void>((done) => {
        const broken = (): void => {
          isBroken = true;
          const error = { error: faultJson(new ApiFault("gone", "The machine died before it answered; its domains are lost")) };
          if (res.headersSent) res.end(`${JSON.stringify(error)}\n`);
          else res.writeHead(FAULT_STATUS.gone, { "content-type": "application/json" }).end(`${JSON.stringify(error)}\n`);
          done();
        };
        const up = httpRequest({ socketPath, method: "POST", path: `/v1/${name}`, agent: false, headers: { host: "domus", ...foldersHeader(folders), "content-type": "application/json", "content-length": body.length } });
        up.on("error", broken);
        up.on("response", (from) => {
          res.writeHead(from.statusCode ?? 500, { "content-type": from.headers["content-type"] ?? "application/json" });
          res.flushHeaders();
          from.on("error", broken);
          from.on("aborted", broken);
          from.on("end", () => { res.end(); done(); });
          if (res.destroyed) from.resume();
          else from.pipe(res, { end: false });
          answer = from;
        });
        res.on("close", () => {
          if (!config) { up.destroy(); done(); } else answer?.resume();        // a domain's making is followed to its end, whoever waits
        });
        up.end(body);
      });
    } finally {
      this.#nrOpen--;
      if (config && !isBroken) this.#state.dropCreating(config.c_info.uuid);        // of one whose machine died it stays, to be told as lost
    }
  }
  /** What this host shows to another, and whom it believes: the certificates of its own address. */
  #identity(): { tls?: { ca?: string; cert?: string; key?: string } } {
    const o = new Map(JSON.parse(this.#state.setting("http") ?? "[]") as [string, string][]), tls = Object.fromEntries((["ca", "cert", "key"] as const).flatMap((k) => { const v = o.get(`tls-${k}`); return v === undefined ? [] : [[k, v]]; }));
    return Object.keys(tls).length ? { tls } : {};
  }
  /** Hand a stream on: bytes both ways. */
  async #join(_name: StreamName, req: IncomingMessage, socket: Duplex, head: Buffer, role: Role): Promise<void> {
    const { socketPath } = (await this.machine.client()).target as { socketPath: string };
    const up = httpRequest({ socketPath, method: "GET", path: req.url, agent: false, headers: { host: "domus", ...foldersHeader(this.foldersFor(role)), connection: "Upgrade", upgrade: "domus" } });
    up.on("error", () => socket.destroy());
    up.on("response", (from) => {
      socket.write(`HTTP/1.1 ${from.statusCode} ${from.statusMessage}\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n`);
      from.pipe(socket);
    });
    up.on("upgrade", (res, other, first) => {
      const task = res.headers[TASK_HEADER];
      if (socket.destroyed) { other.destroy(); return; }        // who asked has left meanwhile
      this.#nrOpen++;
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: domus\r\n${typeof task === "string" ? `${TASK_HEADER}: ${task}\r\n` : ""}\r\n`);
      if (first.length) socket.write(first);
      if (head.length) other.write(head);
      socket.pipe(other);
      other.pipe(socket);
      const over = (): void => { socket.destroy(); other.destroy(); };
      for (const end of [socket, other]) end.on("error", over);
      socket.on("close", () => { this.#nrOpen--; other.destroy(); });
      other.on("close", () => socket.destroy());
    });
    up.end();
  }
}
