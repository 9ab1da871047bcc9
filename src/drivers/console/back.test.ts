import assert from "node:assert/strict";
import test from "node:test";
import { XenconsInterface as PAGE } from "../../abi/io/console.ts";
import { ConsoleBack, type ConsoleOptions } from "./back.ts";
import { consoleStreams } from "./streams.ts";

/** A guest's end of the console page, which is the second of three pages. */
class Guest {
  readonly words = new Int32Array(new SharedArrayBuffer(3 * 4096));
  readonly bytes = new Uint8Array(this.words.buffer);
  readonly page = 4096;
  nrNotified = 0;
  readonly notify = () => { this.nrNotified++; };
  at(field: { at: number }): number {
    return (this.page + field.at) / 4;
  }
  /** @returns how many bytes fitted */
  print(s: string): number {
    const prod = this.words[this.at(PAGE.out_prod)]!, n = Math.min(s.length, PAGE.out.size - ((prod - this.words[this.at(PAGE.out_cons)]!) >>> 0));
    for (let i = 0; i < n; i++) this.bytes[this.page + PAGE.out.at + ((prod + i) & (PAGE.out.size - 1))] = s.charCodeAt(i);
    Atomics.store(this.words, this.at(PAGE.out_prod), prod + n);
    return n;
  }
  typed(): string {
    let s = "";
    for (let cons = this.words[this.at(PAGE.in_cons)]!; cons !== this.words[this.at(PAGE.in_prod)]!; cons = (cons + 1) | 0) {
      s += String.fromCharCode(this.bytes[this.page + PAGE.in.at + (cons & (PAGE.in.size - 1))]!);
      Atomics.store(this.words, this.at(PAGE.in_cons), cons + 1);
    }
    return s;
  }
}
function open(options: Partial<ConsoleOptions> = {}, g = new Guest()) {
  const seen = { text: "", log: [] as string[] };
  const back = new ConsoleBack(g.words, g.page, g.notify, { onOutput: (b) => { seen.text += String.fromCharCode(...b); }, log: (s) => seen.log.push(s), name: "d1 console", ...options });
  return { g, back, seen };
}

test("output comes out in order, over the ring's end and over 2^32", () => {
  const g = new Guest();
  for (const f of [PAGE.out_prod, PAGE.out_cons]) g.words[g.at(f)] = -5;
  const { back, seen } = open({}, g);
  let all = "";
  for (let i = 0; i < 300; i++) {
    const line = `line ${i}\r\n`;
    assert.equal(g.print(line), line.length);
    all += line;
    if (i % 3 === 0) back.poll();
  }
  back.poll();
  assert.equal(seen.text, all);
  const before = g.nrNotified;
  back.poll();
  assert.equal(g.nrNotified, before);
});

test("input larger than the ring waits for the guest, in order", async () => {
  const { g, back } = open(), text = Array.from({ length: 400 }, (_, i) => `word${i} `).join("");
  const written = [back.write(new TextEncoder().encode(text.slice(0, 2000))), back.write(new TextEncoder().encode(text.slice(2000))), back.write(new Uint8Array(0))];
  let isDone = false;
  Promise.all(written).then(() => { isDone = true; });
  await null;
  assert.equal(isDone, false);
  assert.ok(back.nrBytesWaiting > 0);
  let got = "";
  while (back.nrBytesWaiting) {
    got += g.typed();
    back.poll();
  }
  got += g.typed();
  await Promise.all(written);
  assert.equal(got, text);
});

test("while the reader of the output is busy, the guest's ring fills and nothing is lost", async () => {
  let release: () => void = () => {}, text = "";
  const { g, back } = open({ onOutput: (b) => { text += String.fromCharCode(...b); return new Promise<void>((r) => { release = r; }); } });
  g.print("first ");
  back.poll();
  assert.equal(g.print("x".repeat(3000)), 2048);
  back.poll();
  assert.equal(text, "first ");
  release();
  for (let i = 0; i < 2; i++) await null;
  assert.equal(text.length, 6 + 2048);
});

test("the two streams pipe, and a console that closes ends them", async () => {
  const g = new Guest(), c = consoleStreams(g.words, g.page, g.notify, { highWaterBytes: 16 });
  const writer = c.writable.getWriter();
  await writer.write(new TextEncoder().encode("ls\n"));
  assert.equal(g.typed(), "ls\n");
  g.print("a".repeat(20));
  c.back.poll();
  g.print("b");
  c.back.poll();
  const reader = c.readable.getReader();
  assert.equal((await reader.read()).value!.length, 20);
  assert.equal(new TextDecoder().decode((await reader.read()).value), "b");
  g.print("end");
  c.close();
  assert.equal(new TextDecoder().decode((await reader.read()).value), "end");
  assert.equal((await reader.read()).done, true);
  await assert.rejects(writer.write(new Uint8Array(1)), /closed/);
});

test("an index far off loses what was in the ring, says so at most three times, and the console goes on", () => {
  const { g, back, seen } = open();
  for (let i = 0; i < 5; i++) {
    g.words[g.at(PAGE.out_prod)]! += 100_000;
    back.poll();
    back.write(Uint8Array.of(65));
    g.words[g.at(PAGE.in_cons)]! += 50_000;
    back.poll();
    back.write(Uint8Array.of(66));
  }
  assert.equal(seen.log.length, 3);
  assert.match(seen.log[0]!, /^d1 console: out_prod is 100000 ahead of out_cons/);
  seen.text = "";
  g.print("alive");
  back.poll();
  assert.equal(seen.text, "alive");
});

test("a page of random bytes never throws and nothing outside it is written", () => {
  let seed = 99;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  const { g, back, seen } = open({ onOutput: () => {} });
  for (let i = 0; i < 3000; i++) {
    if (random(4) === 0) for (let j = 0; j < 4096; j += 1 + random(64)) g.bytes[g.page + j] = random(256);
    else g.words[g.page / 4 + 768 + random(4)] = random(1 << 24) * 256 + random(256);
    if (random(3) === 0) back.write(new Uint8Array(random(1500))).catch(() => {});
    back.poll();
  }
  assert.ok(g.bytes.subarray(0, 4096).every((b) => b === 0) && g.bytes.subarray(8192).every((b) => b === 0));
  assert.ok(seen.log.length <= 3);
  back.close();
});
