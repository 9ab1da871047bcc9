import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import WebSocket from "ws";
import type { Role } from "../../api/actions.ts";
import { hostPaths } from "../paths.ts";
import { Host, tokenHash } from "./host.ts";
import { serveHttp } from "./http.ts";
import { HostState } from "./state.ts";

/** A host without a machine, served at a port. */
async function served(pingMs: number, tokens: Readonly<Record<string, Role>>): Promise<{ host: Host; server: Server; port: number; end(): void }> {
  const folder = mkdtempSync(join(tmpdir(), "domus-http-")), paths = hostPaths(folder), state = await HostState.open(paths.database), host = new Host(state, paths, () => {});
  for (const [name, role] of Object.entries(tokens)) state.putToken({ name, role, hash: tokenHash(name.padEnd(43, "x")), createdMs: 0 });
  const server = await serveHttp(host, state, { host: "127.0.0.1", port: 0 }, pingMs);
  return { host, server, port: (server.address() as AddressInfo).port, end: () => {
    server.close();
    server.closeAllConnections();
    state.close();
    rmSync(folder, { recursive: true });
  } };
}
const secret = (name: string): string => name.padEnd(43, "x");
/** Listens to events at a WebSocket and never says a word. */
async function mute(port: number, token: string): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  socket.write(`GET /v1/events HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${Buffer.alloc(16).toString("base64")}\r\nAuthorization: Bearer ${token}\r\n\r\n`);
  await once(socket, "data");
  return socket;
}

test("the other end of a WebSocket that sleeps is let go, one that is there stays", { timeout: 60_000 }, async () => {
  const { host, port, end } = await served(50, { reader: "read" });
  const awake = new WebSocket(`ws://127.0.0.1:${port}/v1/events`, { headers: { authorization: `Bearer ${secret("reader")}` } });
  await once(awake, "open");
  const asleep = await mute(port, secret("reader"));
  asleep.resume();
  await once(asleep, "close");
  for (let i = 0; i < 3; i++) await once(awake, "ping");
  assert.equal(awake.readyState, WebSocket.OPEN);
  assert.equal(host.events.nrListeners, 1);
  awake.terminate();
  end();
});

test("a token's connections end with it, those of others stay", { timeout: 60_000 }, async () => {
  const { host, port, end } = await served(30_000, { first: "read", second: "read" }), [first, second] = [await mute(port, secret("first")), await mute(port, secret("second"))];
  const lines = await fetch(`http://127.0.0.1:${port}/v1/events`, { headers: { authorization: `Bearer ${secret("first")}` } });
  assert.equal(host.events.nrListeners, 3);
  await host.served().handlers["token.remove"]!({ name: "first" }, { signal: new AbortController().signal, progress: () => {} });
  await Promise.all([once(first, "close"), assert.rejects(lines.text())]);
  assert.equal(second.closed, false);
  second.destroy();
  end();
});
