import assert from "node:assert/strict";
import { test } from "node:test";
import { ConsoleViews } from "./views.ts";

const bytes = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);
async function all(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const piece of stream) text += new TextDecoder().decode(piece);
  return text;
}

test("every viewer sees the same, a late one from the backlog on", async () => {
  const views = new ConsoleViews(), early = all(views.view());
  views.push(bytes("one "));
  views.push(bytes("two "));
  const late = all(views.view());
  views.push(bytes("three"));
  assert.equal(views.nrViewers, 2);
  views.close();
  assert.deepEqual(await Promise.all([early, late, all(views.view())]), ["one two three", "one two three", "one two three"]);
  assert.equal(views.nrViewers, 0);
});

test("a viewer that does not read holds nobody up, loses the oldest bytes and is told how many", async () => {
  const views = new ConsoleViews(), idle = views.view().getReader(), line = "x".repeat(1023);
  for (let i = 0; i < 1000; i++) views.push(bytes(`${line}\n`));
  views.push(bytes("end"));
  const seen = all(views.view());
  let text = "";
  views.close();
  for (let got = await idle.read(); !got.done; got = await idle.read()) text += new TextDecoder().decode(got.value);
  assert.match(text, /\[\d+ bytes were not read in time and are lost\]/);
  assert.ok(text.endsWith("end") && text.length < 300_000, `${text.length}`);
  assert.equal((await seen).length, 64 << 10);
});

test("one types at a time, and typing goes where the guest's console is", async () => {
  const views = new ConsoleViews(), typed: string[] = [], first = views.takeKeyboard();
  assert.throws(() => views.takeKeyboard(), /Somebody else types/);
  await first.write(bytes("lost"));
  views.typeTo(async (b) => { typed.push(new TextDecoder().decode(b)); });
  await first.write(bytes("a"));
  first.release();
  first.release();
  const second = views.takeKeyboard();
  await first.write(bytes("not mine any more"));
  await second.write(bytes("b"));
  views.typeTo(async () => { throw new Error("closed"); });
  await second.write(bytes("c"));
  assert.deepEqual(typed, ["a", "b"]);
});

test("a viewer that looks away is forgotten", async () => {
  const views = new ConsoleViews(), stream = views.view();
  await stream.cancel();
  assert.equal(views.nrViewers, 0);
  views.push(bytes("x"));
  views.close();
});
