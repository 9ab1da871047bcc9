/**
 * Stock Debian kernels, driven through their consoles. What a guest computes is compared with what this computer computes. One boot carries many
 * checks, because a boot takes seconds.
 */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test, type TestContext } from "node:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { domus, Guest, images, imagesMissing, xlCfg } from "./guest.ts";

const BOOT_MS = 180_000, COMMAND_MS = 180_000;
const folder = mkdtempSync(join(tmpdir(), "domus-debian-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const skip = imagesMissing();

function start(cfgs: Record<string, string>, ...options: string[]): Guest {
  const files = Object.entries(cfgs).map(([name, text]) => {
    const path = join(folder, `${name}.cfg`);
    writeFileSync(path, text);
    return path;
  });
  return new Guest(process.execPath, [domus, "run", ...files, ...options]);
}
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const lines = (to: number): Uint8Array => new TextEncoder().encode(Array.from({ length: to }, (_, i) => `${i + 1}\n`).join(""));
/** A kilobyte that does not compress, and a megabyte of it. */
const kilobyte = Buffer.concat(Array.from({ length: 32 }, (_, i) => createHash("sha256").update(`Domus ${i}`).digest()));
const megabyte = Buffer.concat(Array.from({ length: 1024 }, () => kilobyte));

/** Run a command that must succeed. */
async function ok(guest: Guest, command: string): Promise<string> {
  const { out, code } = await guest.run(command, COMMAND_MS);
  assert.equal(code, 0, `${command}: ended with ${code}\n${out}`);
  return out.trimEnd();
}

/** What every kernel must compute, on every engine. */
async function computesRight(t: TestContext, guest: Guest): Promise<void> {
  await t.test("/proc/cpuinfo shows one CPU of level x86-64-v2", async () => {
    const cpuinfo = await ok(guest, "cat /proc/cpuinfo");
    assert.equal(cpuinfo.match(/^processor\s*:/gm)?.length, 1);
    const flags = new Set(/^flags\s*: (.*)$/m.exec(cpuinfo)?.[1]?.split(" "));
    for (const flag of ["fpu", "cmov", "cx8", "fxsr", "mmx", "syscall", "sse", "sse2", "lm", "cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3", "nx", "hypervisor"]) {
      assert.ok(flags.has(flag), `no ${flag} in: ${[...flags].join(" ")}`);
    }
  });

  await t.test("a sha256sum of 64 MB is right", async () => {
    const [first, ...more] = kilobyte.toString("base64").match(/.{1,900}/g)!;
    await ok(guest, `echo ${first} > /tmp/b`);
    for (const line of more) await ok(guest, `echo ${line} >> /tmp/b`);
    await ok(guest, "base64 -d /tmp/b > /tmp/p");
    assert.equal(await ok(guest, "i=0; while [ $i -lt 10 ]; do cat /tmp/p /tmp/p > /tmp/q; mv /tmp/q /tmp/p; i=$((i+1)); done; sha256sum < /tmp/p"), `${sha256(megabyte)}  -`);
    const whole = createHash("sha256");
    for (let i = 0; i < 64; i++) whole.update(megabyte);
    assert.equal(await ok(guest, "i=0; while [ $i -lt 64 ]; do cat /tmp/p; i=$((i+1)); done | sha256sum"), `${whole.digest("hex")}  -`);
  });

  await t.test("gzip makes round trips, inside and with the world", async () => {
    assert.equal(await ok(guest, "gzip -c /tmp/p | gunzip -c | sha256sum"), `${sha256(megabyte)}  -`);
    assert.equal(await ok(guest, "gzip -9 -c /bin/busybox | gunzip -c | cmp - /bin/busybox && echo same"), "same");
    const theirs = gunzipSync(Buffer.from(await ok(guest, "(head -c 5000 /tmp/p; seq 1 1000) | gzip -9 -c | base64"), "base64"));
    assert.deepEqual(theirs, Buffer.concat([megabyte.subarray(0, 5000), lines(1000)]));
    const ours = Buffer.concat([randomBytes(1500), lines(1500)]);
    await ok(guest, ": > /tmp/b");
    for (const line of gzipSync(ours).toString("base64").match(/.{1,900}/g)!) await ok(guest, `echo ${line} >> /tmp/b`);
    assert.equal(await ok(guest, "base64 -d /tmp/b | gunzip -c | sha256sum"), `${sha256(ours)}  -`);
  });

  await t.test("a thousand forks leave a thousand children and nobody behind", async () => {
    const nrForks = async () => Number(/^processes (\d+)$/m.exec(await ok(guest, "cat /proc/stat"))?.[1]);
    const before = await nrForks();
    assert.equal(await ok(guest, "i=0; n=0; while [ $i -lt 1000 ]; do (exit $((i % 7))); n=$((n + $?)); i=$((i+1)); done; echo $n"), String(Array.from({ length: 1000 }, (_, i) => i % 7).reduce((a, b) => a + b)));
    const forked = (await nrForks()) - before;
    assert.ok(forked >= 1000 && forked < 1100, `${forked} forks`);
    assert.equal(await ok(guest, "i=0; while [ $i -lt 50 ]; do /bin/true & i=$((i+1)); done; wait; echo $?"), "0");
    assert.equal(await ok(guest, "i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); done | cat | cat | tail -n 1"), "99");
  });
}

test("the cloud kernel boots to a shell in which the machine computes right, and powers off (translator)", { skip, timeout: 600_000 }, async (t) => {
  const json = join(folder, "report.json");
  await using guest = start({ cloud: xlCfg("cloud", images("cloud"), 256) }, "--engine", "translator", `--json=${json}`);
  await guest.expect(/Domus: userspace is up/, BOOT_MS);
  await guest.takeShell(BOOT_MS);

  await t.test("it is Debian's kernel, and it knows that it is Xen's guest", async () => {
    assert.match(await ok(guest, "uname -a"), /^Linux domus \S+-cloud-amd64 #1 SMP .*Debian.* x86_64 GNU\/Linux$/);
    assert.equal(await ok(guest, "cat /sys/hypervisor/type"), "xen");
    assert.match(await ok(guest, "cat /sys/hypervisor/version/major"), /^\d+$/);
    assert.match(await ok(guest, "dmesg"), /Hypervisor detected: Xen HVM/);
  });

  await t.test("the kernel found nothing wrong with its machine", async () => {
    const dmesg = await ok(guest, "dmesg");
    assert.doesNotMatch(dmesg, /\bWARNING:|BUG:|Oops|Call Trace|soft lockup|rcu.*stall|clocksource: .*unstable|spurious|Firmware Bug/i);
  });

  await computesRight(t, guest);

  await t.test("floating point gives this computer's digits", async () => {
    // IEEE 754 demands these to the last bit; 17 digits tell all doubles apart. (Debian's busybox has an awk without sqrt and its like.)
    const program = 'BEGIN { x = 0.1; for (i = 1; i < 60; i++) { x = x * 3.7 * (1 - x); r = i; for (k = 0; k < 8; k++) r = (r + (i + x) / r) / 2; printf "%.17g %.17g %.17g %d\\n", x, r, (x - 2) / (i * 1e-300), x * 1e9 } }';
    const rows: number[][] = [];
    for (let x = 0.1, i = 1; i < 60; i++) {
      x = x * 3.7 * (1 - x);
      let r = i;
      for (let k = 0; k < 8; k++) r = (r + (i + x) / r) / 2;
      rows.push([x, r, (x - 2) / (i * 1e-300), Math.trunc(x * 1e9)]);
    }
    assert.deepEqual((await ok(guest, `awk '${program}'`)).split("\n").map((row) => row.split(" ").map(Number)), rows);
  });

  await t.test("time passes at its own pace", async () => {
    const { ms, out } = await guest.run("cat /proc/uptime; sleep 2; cat /proc/uptime; date +%s", COMMAND_MS);
    const [from, to] = [...out.matchAll(/^(\d+\.\d+) /gm)].map((m) => Number(m[1])) as [number, number];
    assert.ok(to - from >= 1.99 && (to - from) * 1000 <= ms + 100, `2 s took ${to - from} s inside and ${ms} ms outside`);
    assert.ok(Math.abs(Number(out.trim().split("\n").at(-1)) - Date.now() / 1000) < 3, `wall clock ${out}`);
  });

  await t.test("processes cannot do what they must not", async () => {
    assert.match((await guest.run("sh -c 'kill -SEGV $$'; echo $?")).out, /139/);
    assert.equal(await ok(guest, "(trap 'echo caught' USR1; kill -USR1 $(sh -c 'echo $PPID'); true)"), "caught");
    assert.equal(await ok(guest, "cat /proc/self/maps > /dev/null && dd if=/dev/urandom bs=4096 count=8 2>/dev/null | wc -c"), "32768");
  });

  await t.test("poweroff ends the command with 0 and a whole report", async () => {
    guest.write("poweroff\n");
    assert.deepEqual(await guest.ended(60_000), { code: 0, signal: null }, guest.err);
    const report = JSON.parse(readFileSync(json, "utf8"));
    assert.deepEqual(report.ends, ["poweroff"]);
    const d = report.domains[0];
    assert.equal(d.name, "cloud");
    assert.ok(d.bootMs > 0 && d.bootMs < d.aliveMs, `boot ${d.bootMs} ms of ${d.aliveMs}`);
    assert.ok(d.instructions > 1e8, `${d.instructions} instructions`);
    assert.ok(d.hypercalls > 100, `${d.hypercalls} hypercalls`);
    assert.ok(d.exits.halt > 0, JSON.stringify(d.exits));
    assert.ok(d.memoryMiB > 200 && d.memoryMiB <= 257, `${d.memoryMiB} MiB`);
  });
});

test("the generic kernel does the same (interpreter)", { skip, timeout: 600_000 }, async (t) => {
  await using guest = start({ generic: xlCfg("generic", images("generic"), 512) }, "--engine", "interpreter");
  await guest.expect(/Domus: userspace is up/, BOOT_MS);
  await guest.takeShell(BOOT_MS);
  assert.match(await ok(guest, "uname -a"), /^Linux domus \d\S+-amd64 #1 SMP .*Debian.* x86_64 GNU\/Linux$/);
  assert.doesNotMatch(await ok(guest, "uname -r"), /cloud/);
  assert.equal(await ok(guest, "cat /sys/hypervisor/type"), "xen");
  await computesRight(t, guest);
  guest.write("poweroff\n");
  assert.deepEqual(await guest.ended(60_000), { code: 0, signal: null }, guest.err);
});

test("a guest that panics ends the command with 3 and a report of its registers and hypercalls", { skip, timeout: 600_000 }, async () => {
  await using guest = start({ crash: xlCfg("crash", images("cloud"), 128) });
  await guest.takeShell(BOOT_MS);
  guest.write("echo c > /proc/sysrq-trigger\n");
  assert.deepEqual(await guest.ended(60_000), { code: 3, signal: null }, guest.err);
  assert.match(guest.out, /Kernel panic - not syncing: sysrq triggered crash/);
  assert.match(guest.err, /^domus: crash crashed: /m);
  assert.match(guest.err, /\brip [0-9a-f]{16}\b/);
  assert.match(guest.err, /last hypercalls:\n +\S/);
  assert.match(guest.err, /sched_op/);
  assert.doesNotMatch(guest.err, /^\s+at .*:\d+:\d+/m);
});

test("two domains share the output by lines, and ^C ends what has not ended with 130", { skip, timeout: 600_000 }, async () => {
  const files = images("cloud"), init = (words: string) => `console=hvc0 quiet rdinit=/bin/busybox -- sh -c "${words}"`;
  const json = join(folder, "two.json");
  await using guest = start({
    one: xlCfg("one", files, 128, init("echo first words; seq 1 5000 | sha256sum; poweroff -f")),
    two: xlCfg("two", files, 128, init("echo other words; seq 1 5000 | sha256sum; while true; do sleep 1; done")),
  }, `--json=${json}`);
  const sum = sha256(lines(5000));
  const until = performance.now() + BOOT_MS;
  while (![`one| ${sum}`, `two| ${sum}`].every((line) => guest.out.includes(line)) && performance.now() < until && guest.child.exitCode === null) await new Promise((done) => setTimeout(done, 50));
  for (const line of ["one| first words", `one| ${sum}  -`, "two| other words", `two| ${sum}  -`]) assert.ok(guest.out.includes(`${line}\n`), `no "${line}" in:\n${guest.out}\n${guest.err}`);
  for (const line of guest.out.split("\n")) assert.match(line, /^(?:(?:one|two)\| .*)?$/);
  assert.doesNotMatch(guest.out, /one\| other|two\| first/);
  await new Promise((done) => setTimeout(done, 2000));
  guest.child.kill("SIGINT");
  assert.deepEqual(await guest.ended(10_000), { code: 130, signal: null }, guest.err);
  const report = JSON.parse(readFileSync(json, "utf8"));
  assert.deepEqual(report.domains.map((d: { name: string }) => d.name).sort(), ["one", "two"]);
  assert.ok(report.domains.every((d: { instructions: number }) => d.instructions > 1e7), JSON.stringify(report));
});

test("^C while the kernel boots gives 130 at once", { skip, timeout: 300_000 }, async () => {
  await using guest = start({ early: xlCfg("early", images("cloud"), 128) });
  await guest.expect(/Linux version/, BOOT_MS);
  guest.child.kill("SIGINT");
  const begun = performance.now();
  assert.deepEqual(await guest.ended(10_000), { code: 130, signal: null }, guest.err);
  assert.ok(performance.now() - begun < 5000);
});
