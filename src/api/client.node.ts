/** The API's other end: actions, tasks, events and streams of a daemon at a Unix socket or an address. */
import { type ClientRequest, type IncomingMessage, request as httpRequest } from "node:http";
import { request as httpsRequest, type RequestOptions } from "node:https";
import { isIPv4 } from "node:net";
import type { Duplex } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import type { ActionName, Params, Result, StreamName } from "./actions.ts";
import type { HostEvent } from "./events.ts";
import { ApiFault, faultFromJson } from "./fault.ts";
import { type Folders, foldersHeader } from "./folders.ts";
import type { Progress } from "./tasks.ts";

/** Where a daemon is. `token` and certificates are for addresses; a Unix socket is its owner's. */
export type Target = { readonly socketPath: string; /** those whose files may be named by this client */ readonly folders?: Folders } | { readonly host: string; readonly port: number; readonly token?: string; readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string } };
/** What a call can be given. */
export type CallOptions = {
  /** ends the call, and cancels the task that it began */
  readonly signal?: AbortSignal;
  progress?(p: Progress): void;
  /** told the task's number as soon as there is one */
  task?(id: string): void;
};
/** A line or an answer: what stands for it. */
type Line = { task?: string; progress?: Progress; result?: unknown; error?: { code?: unknown; message?: unknown } };
/** A stream's parameters; those that are undefined are left out. */
export type StreamParams = Readonly<Record<string, string | number | boolean | undefined>>;
/** No answer in one piece is longer. */
const MAX_LINE_BYTES = 64 << 20;

/** Is that address this computer's own? */
export const isLoopback = (host: string): boolean => host === "localhost" || host === "::1" || (isIPv4(host) && host.startsWith("127."));

const nameOf = (t: Target): string => ("socketPath" in t ? t.socketPath : `${t.host}:${t.port}`);

/** One daemon, asked by a connection a call. */
export class ApiClient {
  readonly target: Target;
  constructor(target: Target) { this.target = target; }

  #open(method: string, path: string, headers: Record<string, string | number>): ClientRequest {
    const t = this.target;
    if ("socketPath" in t) return httpRequest({ socketPath: t.socketPath, method, path, headers: { host: "domus", ...foldersHeader(t.folders ?? null), ...headers }, agent: false });
    const options: RequestOptions = { host: t.host, port: t.port, method, path, agent: false, headers: { ...headers, ...(t.token === undefined ? {} : { authorization: `Bearer ${t.token}` }) }, ...t.tls };
    return t.tls ? httpsRequest(options) : httpRequest(options);
  }
  /** @throws ApiFault "unreachable" where nobody answers */
  #unreachable(e: NodeJS.ErrnoException): ApiFault { return new ApiFault("unreachable", `${nameOf(this.target)}: ${e.code === "ENOENT" || e.code === "ECONNREFUSED" ? "nobody answers" : e.message}`, { cause: e }); }
  #send(method: string, path: string, body: string | null): Promise<IncomingMessage> {
    return new Promise((done, failed) => {
      const req = this.#open(method, path, body === null ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
      req.on("response", done);
      req.on("error", (e) => failed(this.#unreachable(e)));
      req.end(body ?? undefined);
    });
  }

  /** Ask for an action. @throws ApiFault, as the daemon refuses it */
  async call<N extends ActionName>(name: N, params: Params<N>, o: CallOptions = {}): Promise<Result<N>> {
    const res = await this.#send("POST", `/v1/${name}`, JSON.stringify(params));
    let task: string | undefined;
    const abort = (): void => {
      if (task === undefined) res.destroy();
      else void this.call("task.cancel", { task }).catch(() => {});       // its end comes as the last line
    };
    o.signal?.addEventListener("abort", abort, { once: true });
    try {
      for await (const line of linesOf(res)) {
        const said = JSON.parse(line) as Line;
        if (said.task !== undefined) {
          task = said.task;
          o.task?.(task);
          if (o.signal?.aborted) abort();
        }
        if (said.progress) o.progress?.(said.progress);
        if (said.error) throw faultFromJson(said.error);
        if ("result" in said) return said.result as Result<N>;
      }
    } catch (e) {
      if (e instanceof ApiFault) throw e;
      throw new ApiFault("unreachable", `${nameOf(this.target)}: ${o.signal?.aborted ? "the call was given up" : "the connection broke before the answer"}`, { cause: e });
    } finally {
      o.signal?.removeEventListener("abort", abort);
      res.destroy();
    }
    throw new ApiFault("unreachable", `${nameOf(this.target)}: the connection ended before the answer`);
  }

  /** Events from now on, or after `since`, until the signal; the generator ends when the daemon does. @param ready told when none will be missed any more */
  async *events(o: { readonly since?: number; readonly signal?: AbortSignal; ready?(): void } = {}): AsyncGenerator<HostEvent> {
    const res = await this.#send("GET", `/v1/events${o.since === undefined ? "" : `?since=${o.since}`}`, null);
    const stop = (): void => { res.destroy(); };
    o.signal?.addEventListener("abort", stop, { once: true });
    if (o.signal?.aborted) stop();
    o.ready?.();
    try {
      for await (const line of linesOf(res)) yield JSON.parse(line) as HostEvent;
    } catch (e) {
      if (!o.signal?.aborted && (e as NodeJS.ErrnoException).code !== "ECONNRESET") throw e;
    } finally {
      o.signal?.removeEventListener("abort", stop);
      res.destroy();
    }
  }

  /** A page's text: metrics, the OpenAPI document. */
  async page(path: string): Promise<string> {
    const res = await this.#send("GET", path, null);
    let text = "";
    for await (const piece of res.setEncoding("utf8") as AsyncIterable<string>) text += piece;
    if (res.statusCode !== 200) throw faultFromJson((JSON.parse(text) as Line).error ?? {});
    return text;
  }

  /** Open a stream. @throws ApiFault, as the daemon refuses it */
  async stream(name: StreamName, params: StreamParams): Promise<Duplex> { return (await this.openStream(name, params)).connection; }
  /** As `stream`, with the task that tells how it went. */
  openStream(name: StreamName, params: StreamParams): Promise<{ connection: Duplex; task: string | undefined }> {
    const query = new URLSearchParams(Object.entries(params).flatMap(([k, v]) => (v === undefined ? [] : [[k, String(v)]])));
    return new Promise((done, failed) => {
      const req = this.#open("GET", `/v1/streams/${name}?${query}`, { connection: "Upgrade", upgrade: "domus" });
      req.on("upgrade", (res, socket, head) => {
        const task = res.headers["x-domus-task"];
        if (head.length) socket.unshift(head);
        done({ connection: socket, task: typeof task === "string" ? task : undefined });
      });
      req.on("response", (res) => {
        void (async () => {
          let text = "";
          for await (const piece of res.setEncoding("utf8") as AsyncIterable<string>) text += piece;
          return faultFromJson((JSON.parse(text) as Line).error ?? {});
        })().then(failed, failed);
      });
      req.on("error", (e) => failed(this.#unreachable(e)));
      req.end();
    });
  }
}

/** The lines of an answer, the last one without its end too. */
async function* linesOf(res: IncomingMessage): AsyncGenerator<string> {
  const decoder = new StringDecoder("utf8");
  let held = "";
  for await (const piece of res as AsyncIterable<Buffer>) {
    held += decoder.write(piece);
    if (held.length > MAX_LINE_BYTES) throw new ApiFault("failed", "The answer is too long");
    const lines = held.split("\n");
    held = lines.pop()!;
    for (const line of lines) if (line !== "") yield line;
  }
  if (held !== "") yield held;
}
