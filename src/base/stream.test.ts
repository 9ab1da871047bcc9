/** Byte connections in one process: order, room, ends. Sockets: src/storage/socket.test.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { addressName, ByteReader, connectionPair, StreamEnded } from "./stream.ts";

test("a reader cuts chunks of any size into pieces, and says when the peer ended early", async () => {
  const [a, b] = connectionPair(), r = new ByteReader(b);
  await a.write(Uint8Array.of(1, 2), new Uint8Array(0), Uint8Array.of(3, 4, 5));
  await a.write(Uint8Array.of(6));
  assert.deepEqual([...await r.exactly(3)], [1, 2, 3]);
  await r.skip(2);
  a.close();
  assert.deepEqual([...await r.exactly(1)], [6], "what was sent before the end is there");
  await assert.rejects(r.exactly(1), StreamEnded);
});

test("a stopped reader leaves the buffer of the call under way alone", async () => {
  const [a, b] = connectionPair(), r = new ByteReader(b), into = new Uint8Array(2), reading = r.readInto(into);
  r.stop();
  await a.write(Uint8Array.of(9, 9));
  await assert.rejects(reading, StreamEnded);
  assert.deepEqual([...into], [0, 0]);
});

test("a writer waits when its peer does not read, and goes on when it does or is gone", async () => {
  const [a, b] = connectionPair();
  let hasRoom = false;
  const writing = a.write(new Uint8Array(1 << 20), new Uint8Array(1)).then(() => { hasRoom = true; });
  await new Promise((resolve) => { setTimeout(resolve, 5); });
  assert.equal(hasRoom, false);
  await b.read();
  await writing;
  const stuck = a.write(new Uint8Array(2 << 20));
  b.close();
  await stuck;
  await assert.rejects(a.write(new Uint8Array(1)), StreamEnded);
  assert.equal(await a.read(), null);
});

test("addresses are written as one reads them", () => {
  assert.deepEqual([addressName({ host: "h", port: 1 }), addressName({ host: "::1", port: 2 }), addressName({ path: "/s" })], ["h:1", "[::1]:2", "/s"]);
});
