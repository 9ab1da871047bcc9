import assert from "node:assert/strict";
import { test } from "node:test";
import { fetchOutside, urlOf, WEB_ADDRESS } from "./fetch-outside.ts";
import { HttpReader, type HttpRequest } from "./http-request.ts";
import type { OutsideStream } from "./outside.ts";

const bytes = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0)), text = (b: Uint8Array) => String.fromCharCode(...b);
const read = (said: string) => { const r = new HttpReader(); r.push(bytes(said)); return r.take(); };
const base = new URL("http://127.0.0.1:8080/");

test("a body of many small chunks in many pieces is read once, not once a piece", () => {
  const reader = new HttpReader(), nr = 2000, find = Uint8Array.prototype.indexOf;
  let nrLines = 0;
  Uint8Array.prototype.indexOf = function (...args) { nrLines++; return find.apply(this, args); };
  try {
    reader.push(bytes("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for (let i = 0; i < nr; i++) { reader.push(bytes("1\r\nx\r\n")); assert.equal(reader.take(), null); }
    reader.push(bytes("0\r\n\r\n"));
    assert.equal((reader.take() as HttpRequest).body.length, nr);
  } finally { Uint8Array.prototype.indexOf = find; }
  assert.ok(nrLines < 20 * nr, `${nrLines} lines were looked for`);
});

test("requests are read one after the other, however the stream is cut", () => {
  const stream = "GET /a HTTP/1.1\r\nHost: x.example\r\n\r\nPOST /b HTTP/1.1\r\nhost: y\r\ncontent-length: 5\r\n\r\nhello\r\nPUT /c HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n";
  for (const step of [1, 3, 7, stream.length]) {
    const reader = new HttpReader(), got: HttpRequest[] = [];
    for (let at = 0; at < stream.length; at += step) {
      reader.push(bytes(stream.slice(at, at + step)));
      for (let r = reader.take(); r; r = reader.take()) got.push(r as HttpRequest);
    }
    assert.deepEqual(got.map((r) => [r.method, r.target, r.headers.get("host"), text(r.body), r.keepsAlive]), [["GET", "/a", "x.example", "", true], ["POST", "/b", "y", "hello", true], ["PUT", "/c", undefined, "abc0123456789", false]]);
    assert.equal(reader.heldBytes, 0);
  }
});
test("what is no request, or too much of one, is refused with its status", () => {
  const status = (said: string) => (read(said) as { status?: number } | null)?.status;
  assert.equal(status("\x16\x03\x01\x02\r\n\r\n"), 400);
  assert.equal(status("GET / HTTP/1.1\r\nbad header\r\n\r\n"), 400);
  assert.equal(status("POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"), 413);
  assert.equal(status("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), 400);
  assert.equal(status("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n"), 501);
  assert.equal(status("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), 400);
  assert.equal(status("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"), 400);
  assert.equal(status(`GET /${"x".repeat(40000)}`), 431);
  assert.equal(read("GET / HTTP/1.1\r\nHost: a\r\n"), null);
});
test("the Host header says where a request goes", () => {
  const url = (host: string, target = "/p?q") => urlOf({ target, headers: new Map([["host", host]]) }, base)?.href;
  assert.equal(url("deb.example"), "https://deb.example/p?q");
  assert.equal(url("127.0.0.1"), "http://127.0.0.1/p?q");
  assert.equal(url("deb.example:8000"), "http://deb.example:8000/p?q");
  assert.equal(url("page.internal", "/images/list.json"), "http://127.0.0.1:8080/images/list.json");
  assert.equal(url("x", "http://proxied.example/z"), "http://proxied.example/z");
  assert.equal(url(""), undefined);
  assert.equal(url("a b"), undefined);
});

/** Talk to a stream of the outside. */
function open(fetch: typeof globalThis.fetch, port = 80) {
  const seen = { out: "", isConnected: false, closed: undefined as string | null | undefined }, changed: (() => void)[] = [];
  const tell = () => { for (const c of changed.splice(0)) c(); };
  const stream: OutsideStream = fetchOutside({ base, fetch }).connectTcp(WEB_ADDRESS, port, {
    connected: () => { seen.isConnected = true; tell(); }, data: (b) => { seen.out += text(b); tell(); }, drained: () => {}, ended: () => {}, closed: (f) => { seen.closed = f; tell(); },
  });
  const until = async (what: () => boolean) => { while (!what()) await new Promise<void>((done) => changed.push(done)); };
  return { stream, seen, until };
}
test("an answer comes back in chunks over a connection that goes on", async () => {
  const asked: string[] = [];
  const { stream, seen, until } = open(async (url, init) => {
    asked.push(`${init?.method} ${String(url)} ${new Headers(init?.headers).get("x-mine")}`);
    return new Response("hello", { headers: { "content-type": "text/plain", "content-encoding": "gzip" } });
  });
  await until(() => seen.isConnected);
  stream.write(bytes("GET /1 HTTP/1.1\r\nHost: a.example\r\nX-Mine: 1\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a.example\r\n\r\n"));
  await until(() => seen.out.split("HTTP/1.1 200").length === 3 && seen.out.endsWith("\r\n\r\n"));
  assert.deepEqual(asked, ["GET https://a.example/1 null", "HEAD https://a.example/2 null"]);
  assert.match(seen.out, /^HTTP\/1\.1 200 -\r\ncontent-type: text\/plain\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/);
  assert.doesNotMatch(seen.out, /content-encoding/);
  assert.equal(seen.closed, undefined);
  stream.end();
  await until(() => seen.closed === null);
});
test("what the browser does not let a page have is said to the guest", async () => {
  const { stream, seen, until } = open(() => Promise.reject(new TypeError("Failed to fetch")));
  stream.write(bytes("GET / HTTP/1.0\r\nHost: secret.example\r\n\r\n"));
  await until(() => seen.closed === null);
  assert.match(seen.out, /^HTTP\/1\.1 502 .*https:\/\/secret\.example\/.*CORS/s);
});
test("a guest that reads slowly holds the answer up", async () => {
  const { stream, seen, until } = open(async () => new Response("0123456789"));
  stream.pause();
  stream.write(bytes("GET / HTTP/1.0\r\nHost: a\r\n\r\n"));
  for (let i = 0; i < 20; i++) await null;
  assert.equal(seen.out, "");
  stream.resume();
  await until(() => seen.closed === null);
  assert.match(seen.out, /\r\n\r\n0123456789$/);
});
test("other ports than 80 are refused, and names have the one address", async () => {
  const { seen, until } = open(fetch, 443);
  await until(() => seen.closed === "refused");
  const outside = fetchOutside({ base });
  assert.equal(await new Promise((closed) => { outside.connectTcp("2001:db8::1", 80, { connected: () => assert.fail(), data: () => assert.fail(), drained: () => {}, ended: () => {}, closed }); }), "unreachable", "IPv6 has no way out of a page");
  assert.equal(outside.hasIpv6(), false);
  const [at] = outside.resolvers(), query = Uint8Array.of(1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0x61, 2, 0x64, 0x65, 0, 0, 1, 0, 1);
  const reply = await new Promise<Uint8Array>((got) => { outside.openUdp(4, { datagram: got, failed: assert.fail }).send(query, at!.address, at!.port); });
  assert.deepEqual([...reply.subarray(-4)], [198, 18, 0, 80]);
});
