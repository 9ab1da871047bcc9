/**
 * The outside of a router that runs in a page: no sockets there, but `fetch`. A stream to port 80 is taken for HTTP, its requests are fetched by the browser, the answers go back; every name
 * has the one address that stands for all of them, and the Host header says who is meant. The browser's rules hold: a page may read from other origins only what they offer to all (CORS).
 */
import { UserError } from "../../base/errors.ts";
import { DNS_TYPE, RCODE, readQuery, writeReply } from "./dns-message.ts";
import { HttpReader, type HttpFault, type HttpRequest } from "./http-request.ts";
import type { DatagramEvents, Outside, OutsideStream, OutsideUdp, StreamEvents } from "./outside.ts";

/** The address that every name outside has, and the resolver that says so; RFC 2544 keeps 198.18.0.0/15 free. */
export const WEB_ADDRESS = "198.18.0.80";
const RESOLVER = { address: "198.18.0.53", port: 53 } as const;
/** How guests name the page's own origin. */
export const PAGE_HOST = "page.internal";
/** Streams at once; bytes of requests that one may have waiting; how long names are believed. */
const STREAMS_MAX = 64, HELD_BYTES_MAX = 17 << 20, TTL_SECONDS = 300;
/** What of a request is passed on: headers that do not make the browser ask the server first (Fetch standard, "CORS-safelisted request-header"), and two that are worth asking. */
const PASSED = ["accept", "accept-language", "content-language", "content-type", "range", "authorization"];
/** The browser has dealt with these of an answer. RFC 9110 7.6.1 */
const DROPPED = new Set(["connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length", "proxy-authenticate", "trailer", "upgrade"]);
const BODILESS = new Set([204, 205, 304]);
const encoder = new TextEncoder();

/** What `fetchOutside` is made with. */
export type FetchOptions = {
  /** the page: what `PAGE_HOST` is, and whether plain http may be fetched */
  readonly base: URL;
  readonly log?: (sentence: string) => void;
  /** for tests */
  readonly fetch?: typeof globalThis.fetch;
};

/** Where a request goes. Names go by https, as most of what is offered to pages does; addresses and names with a port by the page's own scheme. @returns null for what is none */
export function urlOf(request: Pick<HttpRequest, "target" | "headers">, base: URL): URL | null {
  const host = request.headers.get("host") ?? "", { target } = request;
  if (!/^https?:\/\//i.test(target) && !/^(?:[\w.-]+|\[[\da-f:]+\])(?::\d{1,5})?$/i.test(host)) return null;
  try {
    const url = /^https?:\/\//i.test(target) ? new URL(target) : new URL(`${/^[\d.]+$|:\d+$|^localhost$/.test(host) ? base.protocol : "https:"}//${host}${target.startsWith("/") ? target : `/${target}`}`);
    return url.hostname === PAGE_HOST ? new URL(url.pathname + url.search, base) : url.hostname === "" ? null : url;
  } catch { return null; }
}

class FetchStream implements OutsideStream {
  readonly unsentBytes = 0;
  readonly #options: FetchOptions;
  readonly #events: StreamEvents;
  readonly #reader = new HttpReader();
  readonly #abort = new AbortController();
  #onResume: PromiseWithResolvers<void> | null = null;
  #isBusy = false;
  #hasEnded = false;
  #isOver = false;
  readonly #left: () => void;

  constructor(options: FetchOptions, events: StreamEvents, left: () => void) {
    this.#options = options;
    this.#events = events;
    this.#left = left;
    queueMicrotask(() => { if (!this.#isOver) events.connected(); });
  }
  write(bytes: Uint8Array): void {
    if (this.#isOver || this.#hasEnded) return;
    if (this.#reader.heldBytes + bytes.length > HELD_BYTES_MAX) { this.#over("reset"); return; }
    this.#reader.push(bytes);
    void this.#serve();
  }
  end(): void {
    this.#hasEnded = true;
    void this.#serve();
  }
  abort(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#abort.abort();
    this.#onResume?.resolve();
    this.#left();
  }
  pause(): void { this.#onResume ??= Promise.withResolvers(); }
  resume(): void {
    this.#onResume?.resolve();
    this.#onResume = null;
  }
  #over(fault: "reset" | null): void {
    if (this.#isOver) return;
    this.abort();
    if (fault === null) this.#events.ended();
    this.#events.closed(fault);
  }
  /** One request after the other, as they stand in the stream. */
  async #serve(): Promise<void> {
    if (this.#isBusy || this.#isOver) return;
    this.#isBusy = true;
    try {
      for (let request = this.#reader.take(); request !== null; request = this.#reader.take()) {
        if ("status" in request) { await this.#refuse(request, false); return this.#over(null); }
        const goesOn = await this.#answer(request);
        if (this.#isOver) return;
        if (!goesOn) return this.#over(null);
      }
    } finally { this.#isBusy = false; }
    if (this.#hasEnded) this.#over(null);
  }
  async #send(bytes: Uint8Array): Promise<void> {
    while (this.#onResume && !this.#isOver) await this.#onResume.promise;
    if (!this.#isOver) this.#events.data(bytes);
  }
  #refuse({ status, why }: HttpFault, keepsAlive: boolean): Promise<void> {
    const body = encoder.encode(`${why}\n`);
    return this.#send(encoder.encode(`HTTP/1.1 ${status} Domus\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${body.length}\r\nConnection: ${keepsAlive ? "keep-alive" : "close"}\r\n\r\n${why}\n`));
  }
  /** @returns whether the connection goes on */
  async #answer(request: HttpRequest): Promise<boolean> {
    const { base } = this.#options, url = urlOf(request, base), { keepsAlive, method } = request;
    if (method === "CONNECT" || url === null || url.username !== "") { await this.#refuse({ status: 400, why: "The request names no host" }, false); return false; }
    const headers = new Headers();
    for (const name of PASSED) {
      const value = request.headers.get(name);
      if (value !== undefined) try { headers.set(name, value); } catch { /* no header that a browser sends */ }
    }
    let answer: Response;
    try {
      answer = await (this.#options.fetch ?? globalThis.fetch)(url, {
        method, headers, signal: this.#abort.signal, credentials: "omit", redirect: "follow", cache: "no-store", referrerPolicy: "no-referrer",
        ...(method === "GET" || method === "HEAD" ? {} : { body: request.body }),
      });
    } catch {
      const why = `The browser did not let this page have ${url.href}: either it cannot be reached, or its server does not offer it to all pages (it sends no Access-Control-Allow-Origin; CORS).`;
      this.#options.log?.(why);
      await this.#refuse({ status: 502, why }, keepsAlive);
      return keepsAlive;
    }
    const hasBody = method !== "HEAD" && !BODILESS.has(answer.status), isChunked = hasBody && !request.isHttp10;
    const lines = [`HTTP/1.1 ${answer.status} ${answer.statusText || "-"}`, ...[...answer.headers].filter(([name]) => !DROPPED.has(name)).map(([name, value]) => `${name}: ${value}`),
      `Connection: ${keepsAlive && (isChunked || !hasBody) ? "keep-alive" : "close"}`, ...(isChunked ? ["Transfer-Encoding: chunked"] : [])];
    await this.#send(encoder.encode(`${lines.join("\r\n")}\r\n\r\n`));
    if (!hasBody) { await answer.body?.cancel(); return keepsAlive; }
    try {
      for (const reader = answer.body?.getReader(); reader;) {
        const { done, value } = await reader.read();
        if (done || this.#isOver) break;
        if (value.length === 0) continue;
        if (isChunked) await this.#send(encoder.encode(`${value.length.toString(16)}\r\n`));
        await this.#send(value);
        if (isChunked) await this.#send(encoder.encode("\r\n"));
      }
    } catch {
      this.#over("reset");      // the rest is lost, and the guest must see that it is
      return false;
    }
    if (isChunked) await this.#send(encoder.encode("0\r\n\r\n"));
    return keepsAlive && isChunked;
  }
}

/** Answers for names. */
function resolver(events: DatagramEvents): OutsideUdp {
  let isClosed = false;
  const [a, b, c, d] = WEB_ADDRESS.split(".").map(Number);
  return {
    send: (query, address, port) => {
      if (address !== RESOLVER.address || port !== RESOLVER.port) return;
      const q = readQuery(query);
      if (q === null) return;
      const reply = typeof q === "number" ? writeReply(query, null, q, [], 0)
        : writeReply(query, q, RCODE.NOERROR, q.type === DNS_TYPE.A || q.type === DNS_TYPE.ANY ? [{ type: DNS_TYPE.A, rdata: Uint8Array.of(a!, b!, c!, d!) }] : [], TTL_SECONDS);
      queueMicrotask(() => { if (!isClosed) events.datagram(reply, address, port); });
    },
    close: () => { isClosed = true; },
  };
}

/** The outside of a NatNetwork in a page. */
export function fetchOutside(options: FetchOptions): Outside {
  let nrStreams = 0;
  const dead: OutsideStream = { unsentBytes: 0, write: () => {}, end: () => {}, abort: () => {}, pause: () => {}, resume: () => {} };
  const none = async (): Promise<never> => { throw new UserError("A page cannot listen: ports of this computer do not lead to its guests"); };
  return {
    connectTcp: (address, port, events) => {
      if (address.includes(":")) {
        queueMicrotask(() => events.closed("unreachable"));
        return dead;
      }
      if (port !== 80 || nrStreams >= STREAMS_MAX) {
        queueMicrotask(() => events.closed(port === 80 ? "timeout" : "refused"));
        return dead;
      }
      nrStreams++;
      return new FetchStream(options, events, () => { nrStreams--; });
    },
    openUdp: (_version, events) => resolver(events),
    hasIpv6: () => false,
    listenTcp: none,
    bindUdp: none,
    resolvers: () => [RESOLVER],
  };
}
