/**
 * The API on a socket, Unix or TCP: POST /v1/ACTION takes JSON and gives JSON; a long action gives lines of JSON, the last of which is its result, and goes on when nobody
 * reads them any more; GET /v1/events is a line for each event; GET /v1/streams/NAME with "Upgrade: domus" becomes the stream's bytes.
 */
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { z } from "zod";
import { ACTIONS, type ActionName, type Checked, ROLES, type Result, type Role, type StreamName, STREAMS } from "./actions.ts";
import type { EventLog } from "./events.ts";
import { ApiFault, FAULT_STATUS, faultJson, faultOf } from "./fault.ts";
import { type Folders, foldersOf } from "./folders.ts";
import type { TaskContext, TaskInfo, Tasks } from "./tasks.ts";

/** Bytes of a request: no configuration is longer. */
const MAX_BODY_BYTES = 4 << 20;
/** So much of what was asked for is logged: anybody may ask for anything. */
const MAX_TOLD_CHARS = 128;
/** An event reader that lets so much pile up is dropped. */
const MAX_BEHIND_BYTES = 1 << 20;

/** What a handler is told of its call; `folders`: those whose files the client may name, all where they are not said. */
export type CallContext = TaskContext & { readonly folders?: Folders };
/** Who answers each action; a process has those that are its own. A long action's is given a signal and tells how far it is. */
export type Handlers = { readonly [N in ActionName]?: (params: Checked<N>, context: CallContext) => Promise<Result<N>> | Result<N> };
/** Opens a stream. @returns who takes the connection when it has been said that there is one, and the task that tells how it went, where there is one */
export type StreamOpener = (params: Record<string, unknown>, folders: Folders) => Promise<{ take(connection: Duplex): void; readonly task?: string }>;
/** The header that names a stream's task. */
export const TASK_HEADER = "x-domus-task";
/** What is served. */
export type Served = {
  readonly handlers: Handlers;
  readonly streams?: Readonly<Partial<Record<StreamName, StreamOpener>>>;
  readonly tasks: Tasks;
  readonly events: EventLog;
  /** what a client may; null: it has not said who it is. Default: all, where only their owner can open the socket */
  role?(req: IncomingMessage): Role | null | Promise<Role | null>;
  /** answers the actions and streams that are another process's, for a client of that role */
  readonly elsewhere?: {
    action(name: ActionName, body: Buffer, params: unknown, res: ServerResponse, role: Role): Promise<void>;
    stream(name: StreamName, req: IncomingMessage, socket: Duplex, head: Buffer, role: Role): Promise<void>;
  };
  /** further pages, by their paths */
  readonly pages?: Readonly<Record<string, { readonly role: Role | null; readonly type: string; text(): string | Promise<string> }>>;
  /** told of what came, for a log */
  log?(entry: { readonly action: string; readonly ms: number; readonly status: number; readonly error?: string }): void;
};

/** The words of what does not fit: "kib: Invalid input". */
const issues = (e: z.ZodError): string => e.issues.map((i) => `${i.path.length ? `${i.path.join(".")}: ` : ""}${i.message}`).join("; ");
/** Check against a schema. @throws ApiFault */
export function checkedBy<T extends z.ZodType>(schema: T, what: string, value: unknown): z.output<T> {
  const r = schema.safeParse(value);
  if (!r.success) throw new ApiFault("invalid", `${what}: ${issues(r.error)}`);
  return r.data;
}

async function bodyOf(req: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of req as AsyncIterable<Buffer>) {
    if ((size += piece.length) > MAX_BODY_BYTES) throw new ApiFault("toolarge", `The request is longer than ${MAX_BODY_BYTES} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}
function jsonOf(body: Buffer): unknown {
  if (body.length === 0) return {};
  try { return JSON.parse(body.toString("utf8")); } catch { throw new ApiFault("invalid", "The request's body is not JSON"); }
}
function answer(res: ServerResponse, status: number, value: unknown): void {
  if (res.headersSent || res.destroyed) { res.end(); return; }
  res.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(value)}\n`);
}
const refuse = (res: ServerResponse, e: unknown): void => { const fault = faultOf(e); answer(res, FAULT_STATUS[fault.code], { error: faultJson(fault) }); };
const isAction = (name: string): name is ActionName => Object.hasOwn(ACTIONS, name);
const isStream = (name: string): name is StreamName => Object.hasOwn(STREAMS, name);

/** What a request asks for. @throws ApiFault where that is no address */
export function urlOf(req: IncomingMessage): URL {
  try { return new URL(req.url ?? "/", "http://domus"); } catch { throw new ApiFault("invalid", "What is asked for is no address"); }
}

/** Tell a task's steps and end, a line each; the client may go. @throws ApiFault where there is no such task */
function tellTask(tasks: Tasks, id: string, res: ServerResponse): Promise<TaskInfo["state"]> {
  tasks.mustHave(id);
  res.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
  res.flushHeaders();
  return new Promise((ended) => {
    const line = (value: unknown): void => { if (!res.destroyed) res.write(`${JSON.stringify(value)}\n`); };
    line({ task: id });
    const stop = tasks.watch(id, (t) => {
      if (t.state === "running") { if (t.progress) line({ progress: t.progress }); return; }
      line(t.error ? { error: t.error } : { result: t.result });
      res.end();
      ended(t.state);
    });
    res.on("close", () => { stop(); ended("running"); });
  });
}

/** Events as lines; `since` in the query begins after that one. */
function tellEvents(events: EventLog, since: number | undefined, res: ServerResponse): void {
  res.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
  res.flushHeaders();
  const stop = events.listen((e) => {
    if (res.writableLength > MAX_BEHIND_BYTES) res.destroy();
    else res.write(`${JSON.stringify(e)}\n`);
  }, since);
  res.on("close", stop);
}

/** What serves the requests and upgrades of a server of node:http. */
export function apiListener(s: Served): { request: RequestListener; upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void } {
  const roleFor = async (req: IncomingMessage, needed: Role): Promise<Role> => {
    const role = s.role ? await s.role(req) : "admin";
    if (role === null) throw new ApiFault("unauthorized", "Say who you are: send a token (Authorization: Bearer ...) or a client certificate");
    if (ROLES.indexOf(role) < ROLES.indexOf(needed)) throw new ApiFault("forbidden", `This wants the role "${needed}"; yours is "${role}"`);
    return role;
  };
  const act = async (name: ActionName, req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const a = ACTIONS[name];
    const role = await roleFor(req, a.role), folders = foldersOf(req);
    const body = await bodyOf(req), params = checkedBy(a.params, name, jsonOf(body));
    const handler = s.handlers[name] as ((p: unknown, c: CallContext) => unknown) | undefined;
    if (!handler && s.elsewhere) return s.elsewhere.action(name, body, params, res, role);
    if (name === "task.watch") { await tellTask(s.tasks, (params as { task: string }).task, res); return; }
    if (!handler) throw new ApiFault("notbuilt", `${name} is not built yet`);
    if ("isLong" in a && a.isLong) { await tellTask(s.tasks, s.tasks.start(name, async (c) => handler(params, { ...c, folders })).id, res); return; }
    const aborted = new AbortController();
    res.on("close", () => { if (!res.writableFinished) aborted.abort(); });
    answer(res, 200, { result: await handler(params, { signal: aborted.signal, progress: () => {}, folders }) });
  };
  const serve = async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    const url = urlOf(req), name = /^\/v1\/([\w.]+)$/.exec(url.pathname)?.[1];
    if (req.method === "POST" && name !== undefined && isAction(name)) return act(name, req, res);
    if (req.method === "GET" && name === "events") {
      await roleFor(req, "read");
      const since = url.searchParams.get("since");
      return tellEvents(s.events, since !== null && /^\d{1,15}$/.test(since) ? Number(since) : undefined, res);
    }
    const page = req.method === "GET" && s.pages && Object.hasOwn(s.pages, url.pathname) ? s.pages[url.pathname] : undefined;
    if (page) {
      if (page.role) await roleFor(req, page.role);
      res.writeHead(200, { "content-type": page.type }).end(await page.text());
      return;
    }
    throw new ApiFault("notfound", `There is no ${req.method} ${url.pathname}; POST /v1/ACTION is the form, /openapi.json the list`);
  };
  return {
    request: (req, res) => {
      const begun = performance.now();
      res.on("error", () => {});
      void serve(req, res).catch((e) => { refuse(res, e); return faultOf(e).message; })
        .then((error) => s.log?.({ action: `${req.method} ${(req.url ?? "").split("?")[0]!.slice(0, MAX_TOLD_CHARS)}`, ms: Math.round(performance.now() - begun), status: res.statusCode, ...(typeof error === "string" ? { error } : {}) }));
    },
    upgrade: (req, socket, head) => {
      socket.on("error", () => {});
      void (async () => {
        const url = urlOf(req), name = /^\/v1\/streams\/([\w.]+)$/.exec(url.pathname)?.[1] ?? "";
        if (!isStream(name) || req.headers.upgrade !== "domus") throw new ApiFault("notfound", `There is no stream ${url.pathname}`);
        const role = await roleFor(req, STREAMS[name].role);
        const opener = s.streams?.[name];
        if (!opener && s.elsewhere) return s.elsewhere.stream(name, req, socket, head, role);
        if (!opener) throw new ApiFault("notbuilt", `${name} is not built yet`);
        const { take, task } = await opener(checkedBy(STREAMS[name].params, name, Object.fromEntries(url.searchParams)), foldersOf(req));
        socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: domus\r\n${task === undefined ? "" : `${TASK_HEADER}: ${task}\r\n`}\r\n`);
        if (head.length) socket.unshift(head);
        take(socket);
      })().catch((e) => {
        const fault = faultOf(e), body = `${JSON.stringify({ error: faultJson(fault) })}\n`;
        socket.end(`HTTP/1.1 ${FAULT_STATUS[fault.code]} ${fault.code}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
      });
    },
  };
}
