/** Connections over real sockets, TCP and Unix. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { type ByteConnection, ByteReader, type StreamAddress } from "../base/stream.ts";
import { random, randomBytes, sameBytes } from "./fixture.ts";
import { folder } from "./fixture.node.ts";
import { connectSocket, listenSocket } from "./socket.node.ts";

const dir = folder();
const ends: ByteConnection[] = [];
after(() => {
  for (const c of ends) c.close();
  dir.cleanup();
});

for (const at of [{ host: "127.0.0.1", port: 0 }, { path: dir.path("s.sock") }] as StreamAddress[]) {
  const kind = "path" in at ? "Unix" : "TCP";
  test(`${kind}: bytes arrive whole and in order both ways, a slow reader holds the writer up, the end is seen`, async () => {
    const accepted = Promise.withResolvers<ByteConnection>(), listener = await listenSocket(at, accepted.resolve), client = await connectSocket(listener.address, 1000), server = await accepted.promise;
    ends.push(client, server);
    const bytes = randomBytes(random(1), 65536), r = new ByteReader(server);
    let nrSent = 0;
    const sending = (async () => { for (let i = 0; i < 400; i++) { await client.write(bytes.subarray(0, 1000), bytes.subarray(1000)); nrSent++; } client.close(true); })();
    await new Promise((resolve) => { setTimeout(resolve, 50); });
    assert.ok(nrSent < 400, "26 MB do not fit between two ends");
    for (let i = 0; i < 400; i++) sameBytes(await r.exactly(65536), bytes);
    await sending;
    assert.equal(await server.read(), null);
    server.close();
    await listener.close();
    await assert.rejects(connectSocket(listener.address, 1000), /Cannot connect to .*(?:ECONNREFUSED|ENOENT)/);
  });

  test(`${kind}: closing rejects the read that waits, and writing afterwards`, async () => {
    const accepted = Promise.withResolvers<ByteConnection>(), listener = await listenSocket(at, accepted.resolve), client = await connectSocket(listener.address, 1000), server = await accepted.promise;
    ends.push(client, server);
    const reading = client.read();
    client.close();
    client.close();
    await assert.rejects(reading, /is closed/);
    await assert.rejects(client.write(new Uint8Array(1)), /is closed/);
    assert.equal(await server.read(), null);
    server.close();
    await listener.close();
  });
}
