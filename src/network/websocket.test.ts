import assert from "node:assert/strict";
import { test } from "node:test";
import { type ByteConnection, connectionPair } from "../base/stream.ts";
import { listenSocket } from "../storage/socket.node.ts";
import { acceptWebSocket, dialWebSocket, mayCome } from "./websocket.ts";

const bytes = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0)), text = (b: Uint8Array | null) => String.fromCharCode(...b!);
const HELLO = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

test("Node's own WebSocket and ours understand each other, both ways and in all sizes", async () => {
  const got = Promise.withResolvers<ByteConnection>();
  const listener = await listenSocket({ host: "127.0.0.1", port: 0 }, (raw) => { acceptWebSocket(raw, []).then(got.resolve, got.reject); });
  const { port } = listener.address as { port: number }, client = await dialWebSocket(`ws://127.0.0.1:${port}/`), server = await got.promise;
  for (const size of [1, 125, 126, 65535, 65536, 300_000]) {
    const sent = new Uint8Array(size).map((_, i) => i & 255);
    for (const [from, to] of [[client, server], [server, client]] as const) {
      await from.write(sent.slice());
      const back = new Uint8Array(size);
      for (let at = 0; at < size;) { const chunk = (await to.read())!; back.set(chunk, at); at += chunk.length; }
      assert.deepEqual(back, sent);
    }
  }
  client.close();
  assert.equal(await server.read(), null);
  await listener.close();
});
test("the hello is answered as RFC 6455 section 1.3 has it", async () => {
  const [peer, raw] = connectionPair("us", "peer"), accepted = acceptWebSocket(raw, []);
  await peer.write(bytes(`${HELLO}\r\n`));
  assert.match(text(await peer.read()), /^HTTP\/1\.1 101 [^]*Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\n/);
  const ours = await accepted;
  await peer.write(Uint8Array.of(0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58));       // section 5.7: "Hello", masked
  assert.equal(text(await ours.read()), "Hello");
  await peer.write(Uint8Array.of(0x89, 0x80, 1, 2, 3, 4, 0x82, 0x81, 0, 0, 0, 0, 65));
  assert.equal(text(await ours.read()), "A");
  assert.deepEqual([...(await peer.read())!], [0x8a, 0]);
});
test("pages of other origins are not let in unless they are named", async () => {
  assert.deepEqual(["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1", undefined].map((o) => mayCome(o, [])), [true, true, true, true]);
  assert.deepEqual(["https://evil.example", "http://127.0.0.1.evil.example", "null", "x"].map((o) => mayCome(o, ["https://good.example"])), [false, false, false, false]);
  assert.ok(mayCome("https://good.example", ["https://good.example"]));
  const [peer, raw] = connectionPair(), accepted = acceptWebSocket(raw, []);
  await peer.write(bytes(`${HELLO}Origin: https://evil.example\r\n\r\n`));
  await assert.rejects(accepted, /Pages of https:\/\/evil\.example are not let in/);
  assert.match(text(await peer.read()), /^HTTP\/1\.1 403/);
});
test("a peer that does not keep the rules is sent away", async () => {
  for (const [what, frame] of [["no mask", [0x82, 1, 65]], ["text", [0x81, 0x81, 0, 0, 0, 0, 65]], ["too long", [0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]], ["long ping", [0x89, 0xfe, 1, 0]], ["reserved", [0xc2, 0x80, 0, 0, 0, 0]], ["kind 3", [0x83, 0x80, 0, 0, 0, 0]]] as const) {
    const [peer, raw] = connectionPair(), accepted = acceptWebSocket(raw, []);
    await peer.write(bytes(`${HELLO}\r\n`));
    const ours = await accepted;
    await peer.write(Uint8Array.from(frame));
    await assert.rejects(ours.read(), /StreamEnded|sends|uses/, what);
  }
  const [peer, raw] = connectionPair(), accepted = acceptWebSocket(raw, []);
  await peer.write(bytes("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  await assert.rejects(accepted, /speaks WebSocket only/);
});
