import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ConsoleViews } from "../drivers/console/views.ts";
import { joinConsole, logConsole, serveChannel } from "./consoles.ts";

const turn = (): Promise<void> => new Promise((done) => { setTimeout(done, 1); });
const folder = (): string => mkdtempSync(join(tmpdir(), "domus-consoles-"));

test("a channel at a socket: many look, the first who types may, and slow readers are waited for without a trace", async () => {
  const dir = folder(), path = join(dir, "sock"), views = new ConsoleViews(), typed: string[] = [], warnings: string[] = [], warned = (w: Error): void => { warnings.push(w.message); };
  process.on("warning", warned);
  views.typeTo(async (bytes) => { typed.push(new TextDecoder().decode(bytes)); });
  const end = await serveChannel(path, views), a = connect(path), b = connect(path);
  let nrBytes = 0;
  a.on("data", (bytes) => { nrBytes += bytes.length; });
  b.on("data", () => {});
  await Promise.all([once(a, "connect"), once(b, "connect")]);
  a.write("first");
  while (typed.length === 0) await turn();
  b.write("second");
  for (let i = 1; i <= 30; i++) {
    views.push(new Uint8Array(200 << 10).fill(65));
    while (nrBytes < i * (200 << 10)) await turn();
  }
  await turn();
  assert.deepEqual(typed, ["first"]);
  assert.deepEqual(warnings, []);
  end();
  await Promise.all([a, b].map((s) => s.closed || once(s, "close")));
  while (views.nrViewers > 0) await turn();
  process.off("warning", warned);
  rmSync(dir, { recursive: true });
});

test("a log has all that a console said", async () => {
  const dir = folder(), views = new ConsoleViews(), path = join(dir, "logs", "a.log"), warnings: string[] = [], warned = (w: Error): void => { warnings.push(w.message); };
  process.on("warning", warned);
  logConsole(join(dir, "logs"), "a", views, assert.fail);
  const sizeBytes = (): number => { try { return statSync(path).size; } catch { return 0; } };
  for (let i = 1; i <= 30; i++) {
    views.push(new Uint8Array(200 << 10).fill(66));
    while (sizeBytes() < i * (200 << 10)) await turn();
  }
  views.close();
  assert.deepEqual(warnings, []);
  process.off("warning", warned);
  rmSync(dir, { recursive: true });
});

test("a console's log does not grow without bound: what is older goes into a second file, and then away", { timeout: 60_000 }, async () => {
  const dir = folder(), views = new ConsoleViews(), path = join(dir, "a.log"), text = (file: string): string => { try { return readFileSync(file, "latin1"); } catch { return ""; } };
  writeFileSync(path, "left by an earlier life");
  logConsole(dir, "a", views, assert.fail, 100);
  for (const letter of "abcde") {
    views.push(new TextEncoder().encode(letter.repeat(90)));
    while (text(path) !== letter.repeat(90)) await turn();
  }
  assert.equal(text(`${path}.1`), "d".repeat(90));
  assert.deepEqual(readdirSync(dir).sort(), ["a.log", "a.log.1"]);
  views.close();
  rmSync(dir, { recursive: true });
});

test("who leaves a console leaves its keyboard, though the guest says nothing and reads nothing and the connection stays half open", { timeout: 60_000 }, async () => {
  const dir = folder(), path = join(dir, "sock"), views = new ConsoleViews(), typed: string[] = [];
  views.typeTo((bytes) => { typed.push(new TextDecoder().decode(bytes)); return new Promise(() => {}); });
  const server = createServer({ allowHalfOpen: true }, (socket) => { void joinConsole(socket, views).then((how) => { assert.equal(how, "left"); socket.end(); }); });
  await new Promise<void>((done) => { server.listen(path, done); });
  for (const word of ["first", "second"]) {
    const client = connect(path);
    client.write(word);
    while (typed.at(-1) !== word) await turn();
    client.destroy();
    while (views.nrViewers > 0) await turn();
  }
  server.close();
  rmSync(dir, { recursive: true });
});
