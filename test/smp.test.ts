/** A stock Debian kernel on several vCPUs: all come up, go and come back on line, and work together on fewer pCPUs than they are. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { nodeHost } from "../src/toolstack/host.node.ts";
import { createMachine } from "../src/toolstack/machine.ts";
import { images, imagesMissing } from "./guest.ts";

const skip = imagesMissing();
/** Generous: two busy processors, a guest with four. */
const LIMIT_MS = 150_000;

test("a stock Debian has its vCPUs on line as the toolstack says, and works on all of them", { skip }, async () => {
  const { kernel, ramdisk } = images();
  await using machine = await createMachine({ host: nodeHost(), pcpus: 2, memoryMiB: 256 });
  const domain = await machine.createDomain({ name: "smp", kernel: readFileSync(kernel), ramdisk: readFileSync(ramdisk), memoryMiB: 192, vcpus: 2, maxvcpus: 4, cmdline: "console=hvc0 quiet cryptomgr.notests=1" });
  let out = "", told = (): void => {}, nr = 0;
  const read = domain.console.readable.pipeTo(new WritableStream({ write: (b) => { out += String.fromCharCode(...b); told(); } })).catch(() => {});
  const writer = domain.console.writable.getWriter();
  const expect = async (pattern: RegExp): Promise<string> => {
    for (const end = performance.now() + LIMIT_MS;;) {
      const found = pattern.exec(out);
      if (found) { out = out.slice(found.index + found[0].length); return found[1] ?? ""; }
      assert.ok(performance.now() < end, `The guest did not say ${pattern}. Its last words:\n${out.slice(-2000)}`);
      await new Promise<void>((done) => { const timer = setTimeout(done, 1000); told = () => { clearTimeout(timer); done(); }; });
    }
  };
  const run = async (command: string): Promise<string> => {
    nr++;
    await writer.write(new TextEncoder().encode(`${command}; echo "@@"end ${nr}\n`));
    return (await expect(new RegExp(`([^]*?)@@end ${nr}\\r?\\n`))).replaceAll("\r", "");
  };
  /** Wait until /sys says so. */
  const online = (list: string): Promise<string> => run(`until [ "$(cat /sys/devices/system/cpu/online)" = ${list} ]; do sleep 0.1; done`);
  /**
   * What udev's rule does in a full system: a processor that has come (Linux's xen driver only registers it) is taken into use. Its folder is there a moment before it
   * is present, and until then Linux refuses.
   */
  const take = (...cpus: number[]): Promise<string> => run(`for c in ${cpus.join(" ")}; do until echo 1 2>/dev/null > /sys/devices/system/cpu/cpu$c/online; do sleep 0.1; done; done`);
  await expect(/# /);
  await run("stty -echo; PS1=");
  await online("0-1");
  assert.deepEqual(machine.cpus.vcpus(domain.domid).map((v) => v.isOnline), [true, true, false, false]);

  machine.cpus.setOnline(domain.domid, 4);
  await take(2, 3);
  await online("0-3");
  const before = machine.cpus.vcpus(domain.domid).map((v) => v.timeNs);
  const sums = await run("seq 8 | xargs -P 4 -n 1 sh -c 'head -c 100000 /bin/busybox | gzip | sha256sum' | sort -u | wc -l");
  assert.equal(sums.trim(), "1", "all of them computed the same");
  await run("echo l > /proc/sysrq-trigger");
  assert.equal((await run("dmesg | grep -o 'NMI backtrace for cpu [0-9]*' | sort -u | wc -l")).trim(), "4", "an NMI finds each of them, whatever it does");
  for (const [i, v] of machine.cpus.vcpus(domain.domid).entries()) assert.ok(v.isOnline && v.timeNs > before[i]! + 1e6, `vCPU ${i} ran for ${v.timeNs - before[i]!} ns of it`);

  machine.cpus.setOnline(domain.domid, 1);
  await online("0");
  assert.equal((await run("nproc")).trim(), "1");
  machine.cpus.setOnline(domain.domid, 3);
  await take(1, 2);
  await online("0-2");
  assert.deepEqual(machine.cpus.vcpus(domain.domid).map((v) => v.isOnline), [true, true, true, false]);
  await writer.write(new TextEncoder().encode("poweroff -f\n"));
  assert.equal((await domain.wait()).reason, "poweroff");
  await domain.destroy();
  await read;
});
