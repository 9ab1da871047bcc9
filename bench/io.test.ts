/** What bench/io.ts reads and computes, without a guest. The texts are from fio 3.33 and iperf3 3.12 in such guests, shortened where said. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { Collector, markdown } from "./figures.ts";
import { ratioTable } from "./io.ts";
import { buildPingpong, label, PAIR_WORKS, readFio, readIperf, readPair, readPingpong, WORKS } from "./io-guest.ts";
import { Standstill } from "./standstill.ts";
import { cpuSeconds, hostServers, readCounts } from "./io-peers.ts";

/** The twenty percentiles of a terse line, which gtod_reduce leaves at zero. */
const NONE = "0%=0;".repeat(20);
const READ = `3;fio-3.33;r;0;0;6813696;2262934;2209;3011;0;0;0.000000;0.000000;0;0;0.000000;0.000000;${NONE}0;0;0.000000;0.000000;1472512;2975744;100.000000%;2263608.166667;530351.642836;0;0;0;0;0;0;0.000000;0.000000;0;0;0.000000;0.000000;${NONE}0;0;0.000000;0.000000;0;0;0.000000%;0.000000;0.000000;3.022252%;27.167054%;11022;0;257\r\n`;
const WRITE = `3;fio-3.33;r;0;0;0;0;0;0;0;0;0.000000;0.000000;0;0;0.000000;0.000000;${NONE}0;0;0.000000;0.000000;0;0;0.000000%;0.000000;0.000000;114936;38260;9565;3004;0;0;0.000000;0.000000;0;0;0.000000;0.000000;${NONE}0;0;0.000000;0.000000;33040;44063;97.501307%;37304.000000;4175.807287;9.523810%;71.395271%;435;0;1\r\n`;
/** Shortened: without most of "start" and "sum_sent". */
const IPERF = `{\r\n\t"start":\t{\r\n\t\t"version":\t"iperf 3.12"\r\n\t},\r\n\t"intervals":\t[],\r\n\t"end":\t{\r\n\t\t"sum_received":\t{\r\n\t\t\t"start":\t0,\r\n\t\t\t"seconds":\t2.024112,\r\n\t\t\t"bytes":\t21892312,\r\n\t\t\t"bits_per_second":\t86526089.465405077,\r\n\t\t\t"sender":\ttrue\r\n\t\t}\r\n\t}\r\n}\r\n`;
const work = (key: string) => [...WORKS, ...PAIR_WORKS].find((w) => w.key === key)!;

test("readFio takes the fields of one direction, and refuses a line that has none or tells of an error", () => {
  assert.deepEqual(readFio(`fio: a word\n${READ}`, "read"), { kib: 6813696, kibPerSec: 2262934 });
  assert.deepEqual(readFio(WRITE, "write"), { kib: 114936, kibPerSec: 38260 });
  assert.throws(() => readFio(READ, "write"), /no writes to tell of/);
  assert.throws(() => readFio(READ.replace(";r;0;0;", ";r;0;5;"), "read"), /fio failed/);
  assert.throws(() => readFio("fio: failed to open /dev/xvdb\n", "read"), /fio failed:\nfio: failed to open/);
});

test("a disk's row is MiB a second and GiB where blocks are large, operations where they are small", () => {
  assert.deepEqual(work("read-1M-d1").read(READ), { rate: 2262934 / 1024, amount: 6813696 / 2 ** 20 });
  assert.deepEqual(work("randwrite-4k-d32").read(WRITE), { rate: 38260 / 4, amount: 114936 / 4 });
});

test("readIperf takes what was received, and tells iperf3's own reason for a failure", () => {
  assert.deepEqual(readIperf(`warning\n${IPERF}`), { bytes: 21892312, bitsPerSec: 86526089.465405077 });
  assert.throws(() => readIperf('{\n\t"start":\t{\n\t},\n\t"end":\t{\n\t},\n\t"error":\t"unable to connect to server"\n}\n'), /iperf3 failed: unable to connect to server/);
  assert.throws(() => readIperf('{\n\t"end":\t{\n\t}\n}\n'), /nothing came through/);
  assert.throws(() => readIperf("timeout: no iperf3\n"), /iperf3 failed:\ntimeout/);
});

test("two guests' console is read behind the domain's prefix, and a work that failed is named", () => {
  const lines = (end: number) => `\x1bc@@begin tcp-to-guest\n${IPERF}@@end tcp-to-guest 0\r\n@@begin tcp-ask-guest\r\nPP END 824 2.034986\r\n@@end tcp-ask-guest ${end}\r\n@@over`;
  const prefixed = (text: string) => `server| hello\n${text.split("\n").map((l) => `client| ${l}`).join("\n")}\n`, found = readPair(prefixed(lines(0)), "client| ");
  assert.equal(found.get("tcp-to-guest")!.rate, 86526089.465405077 / 1e6);
  assert.deepEqual(found.get("tcp-ask-guest"), { rate: 824 / 2.034986, amount: 824 });
  assert.deepEqual(readPair(lines(0), ""), found);
  assert.throws(() => readPair(lines(124), ""), /tcp-ask-guest ended with 124/);
  assert.throws(() => readPair("@@begin tcp-to-guest\n", ""), /tcp-to-guest did not end/);
});

test("every work has a name of its own, and its line stands on one line without a quote", () => {
  const all = [...WORKS, ...PAIR_WORKS], at = { disk: "/dev/xvdb", host: "10.0.2.2", iperfPort: 1, pingpongPort: 2 };
  assert.equal(new Set(all.map((w) => w.key)).size, all.length);
  for (const w of all) assert.match(w.line(at, 5), /^timeout -k 5 65 [^\n"']+$/, w.key);
});

test("a report's exits are added up, and a report of two domains is refused", () => {
  const domain = { instructions: 2793031447, hypercalls: 23226, exits: { slice: 40273, halt: 1956 } };
  assert.deepEqual(readCounts(JSON.stringify({ domains: [domain] })), { instructions: 2793031447, hypercalls: 23226, exits: 42229 });
  assert.throws(() => readCounts(JSON.stringify({ domains: [domain, domain] })), /this has 2/);
});

test("a row is met at the peer's figure, and not below it; one without a peer is not measured", () => {
  const rates = new Collector();
  for (const [row, ratio] of [["a", 1], ["b", 0.5]] as const) rates.add(row, "Domus / TCG, virtio", ratio);
  rates.add("c", "Domus", 7);
  const text = markdown(ratioTable(rates, ["Domus / TCG, virtio"]));
  for (const line of ["| a | 1.00 | met |", "| b | 0.50 | missed |", "| c | - | not measured |", "| **worst** | 0.50, b | - |", "1 of 3 rows are as asked."]) assert.ok(text.includes(line), `${line} in\n${text}`);
  assert.equal(label(work("tcp-ask-host")), "tcp-ask-host, requests/s");
});

test("the programs on the host answer at their ports, and what they use of the processor is counted", async () => {
  const before = cpuSeconds(process.pid);
  await using servers = await hostServers();
  const asked = spawnSync(buildPingpong(), ["127.0.0.1", String(servers.pingpongPort), "0.2"], { encoding: "utf8" });
  const { requests, seconds } = readPingpong(asked.stdout);
  assert.ok(requests > 0 && seconds >= 0.2, asked.stdout);
  const sent = spawnSync("iperf3", ["-c", "127.0.0.1", "-p", String(servers.iperfPort), "-n", "64M", "-J", "-i", "0"], { encoding: "utf8" });
  assert.ok(readIperf(sent.stdout).bytes > 2 ** 25, sent.stdout);      // of a mebibyte iperf3 sometimes counts nothing
  assert.ok(cpuSeconds(process.pid) >= before);
  assert.throws(() => readPingpong(spawnSync(buildPingpong(), ["here", "1", "1"], { encoding: "utf8" }).stderr), /"here" is not an IPv4 address/);
});

test("a computer that stood still is noticed, and one that is merely busy is not", () => {
  let nowMs = 0;
  using watch = new Standstill(() => nowMs);
  for (const [step, nr] of [[100, 0], [1000, 0], [26_000, 1], [100, 1], [120_100, 2]] as const) {
    nowMs += step;
    assert.equal(watch.look(), nr, `after ${nowMs} ms`);
  }
  assert.equal(watch.stoodMs, 25_900 + 120_000);
});
