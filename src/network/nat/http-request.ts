/** Reads HTTP/1.x requests out of a stream of bytes, whole ones: RFC 9112. For a gateway; the peer is a guest, and nothing it sends is believed. */

/** A request, its body with it. */
export type HttpRequest = { readonly method: string; readonly target: string; readonly isHttp10: boolean; readonly headers: ReadonlyMap<string, string>; readonly body: Uint8Array<ArrayBuffer>; readonly keepsAlive: boolean };
/** What is wrong with what came: the connection ends with this status. */
export type HttpFault = { readonly status: number; readonly why: string };

const HEAD_BYTES = 32 << 10, BODY_BYTES = 16 << 20, CHUNK_LINE_BYTES = 256;
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const latin1 = (bytes: Uint8Array): string => { let s = ""; for (let i = 0; i < bytes.length; i += 4096) s += String.fromCharCode(...bytes.subarray(i, i + 4096)); return s; };
const fault = (status: number, why: string): HttpFault => ({ status, why });
/** Where CRLF (or a bare LF) ends a line. */
const lineEnd = (bytes: Uint8Array, from: number): number => bytes.indexOf(10, from);

/** One stream's requests, in order. */
export class HttpReader {
  #buffer = new Uint8Array(4096);
  #held = this.#buffer.subarray(0, 0);

  /** chunks of the request at the front that are here, as offsets: what comes next goes on from there */
  #chunksSeen: { at: number; sizeBytes: number; readonly spans: number[] } | null = null;

  /** bytes that are kept */
  get heldBytes(): number { return this.#held.length; }
  /** More bytes of the stream. */
  push(bytes: Uint8Array): void {
    const n = this.#held.length;
    if (n + bytes.length > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(2 * this.#buffer.length, n + bytes.length));
      larger.set(this.#held);
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, n);
    this.#held = this.#buffer.subarray(0, n + bytes.length);
  }
  /** Take the first request out; null: it is not whole yet. Call it again after each. */
  take(): HttpRequest | HttpFault | null {
    let start = 0;
    while (this.#held[start] === 13 || this.#held[start] === 10) start++;       // RFC 9112 2.2: empty lines before a request are ignored
    const lines: string[] = [];
    let at = start;
    for (;;) {
      const end = lineEnd(this.#held, at);
      if (end < 0 || end - start > HEAD_BYTES) return this.#held.length - start > HEAD_BYTES ? fault(431, "The head is too long") : null;
      const line = latin1(this.#held.subarray(at, end)).replace(/\r$/, "");
      at = end + 1;
      if (line === "") break;
      lines.push(line);
    }
    const [, method, target, minor] = /^(\S+) (\S+) HTTP\/1\.([01])$/.exec(lines[0] ?? "") ?? [];
    if (method === undefined || !TOKEN.test(method)) return fault(400, "That is no HTTP/1 request");
    const headers = new Map<string, string>();
    for (const line of lines.slice(1)) {
      const colon = line.indexOf(":"), name = line.slice(0, colon).toLowerCase();
      if (colon < 1 || !TOKEN.test(name)) return fault(400, "A header line is no header");
      const value = line.slice(colon + 1).trim();
      headers.set(name, headers.has(name) ? `${headers.get(name)}, ${value}` : value);
    }
    const body = this.#body(headers, at);
    if (body === null || "status" in body) return body;
    const rest = this.#held.slice(body.end);
    this.#buffer = new Uint8Array(Math.max(4096, rest.length));
    this.#buffer.set(rest);
    this.#held = this.#buffer.subarray(0, rest.length);
    const connection = (headers.get("connection") ?? "").toLowerCase(), isHttp10 = minor === "0";
    return { method: method.toUpperCase(), target: target!, isHttp10, headers, body: body.bytes, keepsAlive: isHttp10 ? connection.includes("keep-alive") : !connection.includes("close") };
  }
  #body(headers: ReadonlyMap<string, string>, from: number): { readonly bytes: Uint8Array<ArrayBuffer>; readonly end: number } | HttpFault | null {
    const coding = headers.get("transfer-encoding"), length = headers.get("content-length");
    if (coding !== undefined) return coding.toLowerCase() === "chunked" && length === undefined ? this.#chunks(from) : fault(501, "Only the transfer coding chunked is understood, and without Content-Length");
    if (length === undefined) return { bytes: new Uint8Array(0), end: from };
    if (!/^\d{1,15}$/.test(length)) return fault(400, "Content-Length is no number");
    if (Number(length) > BODY_BYTES) return fault(413, `A body of ${length} bytes; ${BODY_BYTES} is the limit`);
    const end = from + Number(length);
    return this.#held.length < end ? null : { bytes: this.#held.slice(from, end), end };
  }
  #chunks(from: number): { readonly bytes: Uint8Array<ArrayBuffer>; readonly end: number } | HttpFault | null {
    const seen = this.#chunksSeen ??= { at: from, sizeBytes: 0, spans: [] }, { spans } = seen;
    let { at, sizeBytes: size } = seen;
    for (;;) {
      seen.at = at;
      seen.sizeBytes = size;
      const end = lineEnd(this.#held, at);
      if (end < 0) return this.#held.length - at > CHUNK_LINE_BYTES ? fault(400, "A chunk has no size") : null;
      const digits = /^([0-9a-f]{1,8})\s*(?:;.*)?\r?$/i.exec(latin1(this.#held.subarray(at, Math.min(end, at + CHUNK_LINE_BYTES))))?.[1];
      if (digits === undefined) return fault(400, "A chunk has no size");
      const bytes = Number.parseInt(digits, 16);
      at = end + 1;
      if ((size += bytes) > BODY_BYTES) return fault(413, `A body of more than ${BODY_BYTES} bytes`);
      if (bytes === 0) break;
      const last = at + bytes, next = this.#held.length < last + 1 ? -1 : lineEnd(this.#held, last);
      if (next < 0) return null;
      spans.push(at, last);
      at = last;
      if (next > at + 1) return fault(400, "A chunk is longer than its size");
      at = next + 1;
    }
    for (const begin = at; ;) {                              // trailers are not used
      const end = lineEnd(this.#held, at);
      if (end < 0) return this.#held.length - begin > HEAD_BYTES ? fault(431, "The trailers are too long") : null;
      const isLast = end - at <= 1;
      at = end + 1;
      if (isLast) break;
    }
    const bytes = new Uint8Array(size);
    let to = 0;
    for (let i = 0; i < spans.length; i += 2) {
      const part = this.#held.subarray(spans[i], spans[i + 1]);
      bytes.set(part, to);
      to += part.length;
    }
    this.#chunksSeen = null;
    return { bytes, end: at };
  }
}
