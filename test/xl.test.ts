/** The host as its users meet it: xl's words, columns and codes, and what is left when something dies in the middle. */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { ApiClient } from "../src/api/client.node.ts";
import type { ApiFault } from "../src/api/fault.ts";
import { needDaemon } from "../src/bin/daemon/launch.ts";
import { startOf } from "../src/bin/daemon/processes.ts";
import { HostState } from "../src/bin/daemon/state.ts";
import { root } from "./guest.ts";
import { TestHost } from "./host.ts";

let host: TestHost;
before(async () => { host = await TestHost.start(); });
afterEach(async () => { for (const name of await host.names()) await host.xl("destroy", name); });       // so that one that fails fails alone
after(async () => { await host[Symbol.asyncDispose](); });
/** Nothing is left of any guest: no domain, no node in the store, all memory free. */
let freeMiB: number;
async function isClean(): Promise<void> {
  assert.deepEqual(await host.names(), []);
  assert.deepEqual((await host.client.call("host.configs", {})), []);
  assert.equal((await host.client.call("machine.info", {})).freeMiB, freeMiB);
  assert.equal(host.store("/local/domain").split("\n").filter((l) => /^\S/.test(l)).join(), '0 = ""');
}

test("a domain is made, listed in xl's columns, stopped, renamed and ended", async () => {
  freeMiB = (await host.client.call("machine.info", {})).freeMiB;
  const file = host.cfg("one"), made = await host.xl("create", file);
  assert.deepEqual([made.code, made.out, made.err], [0, "", `Parsing config from ${file}\n`]);
  const lines = (await host.done("list")).split("\n"), domid = await host.domid("one");
  assert.equal(lines[0], "Name                                        ID   Mem VCPUs\tState\tTime(s)");
  assert.match(lines[1]!, /^Domain-0 {33} {4}0 +\d+ {5}1 {5}r----- {2} +\d+\.\d$/);
  assert.match(lines[2]!, new RegExp(`^one {37} +${domid} {4}1[6-9] {5}1 {5}[r-][b-]---- {2} +\\d+\\.\\d$`));
  await host.until("the guest sleeps", async () => /-b----/.test(await host.done("list", "one")));
  await host.done("pause", "one");
  assert.match(await host.done("list", String(domid)), /^one .* -bp---/m);
  await host.done("unpause", "one");
  await host.refuses(1, /one is not paused/, "unpause", "one");
  assert.equal(await host.done("domname", String(domid)), "one\n");
  await host.done("rename", "one", "two");
  assert.equal(await host.domid("two"), domid);
  assert.match(host.store(`/local/domain/${domid}`), /^name = "two"$/m);
  const [, long] = JSON.parse(await host.done("list", "-l")) as { domid: number; config: { c_info: { name: string } } }[];
  assert.deepEqual([long!.domid, long!.config.c_info.name], [domid, "two"]);
  assert.match(await host.done("list", "-v", "two"), / [0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12} +- +-$/m);
  assert.match(await host.done("uptime", "-s", "two"), /^ \d\d:\d\d:\d\d up {2}0:0\d, two \(\d+\)\n$/);
  assert.match(await host.done("vm-list"), new RegExp(`^[0-9a-f-]{36} {2}${domid} {4}two +$`, "m"));
  assert.match(await host.done("info"), /^free_memory {12}: \d+$/m);
  await host.done("debug-keys", "q");
  assert.match(await host.done("dmesg"), new RegExp(`^\\(XEN\\) \\[ +[\\d.]+\\] Domain ${domid} \\(two\\): 41\\d\\d pages`, "m"));
  assert.deepEqual(await host.xl("destroy", "two"), { code: 0, out: "", err: "" });
  await isClean();
});

test("what cannot be is answered in xl's words and codes, and leaves nothing behind", async () => {
  for (const verb of ["destroy", "pause", "unpause", "shutdown", "reboot", "console", "block-list"]) await host.refuses(1, /^nobody is an invalid domain identifier/m, verb, "nobody");
  await host.refuses(1, /^99 is an invalid domain identifier \(rc=-6\)$/m, "destroy", "99");
  await host.refuses(1, /^Not destroying domain 0; use -f to force\.$/m, "destroy", "0");
  await host.refuses(1, /^Can't get domid of domain name 'nobody', maybe this domain does not exist\.$/m, "domid", "nobody");
  await host.refuses(1, /^Error: Domain 'nobody' does not exist\.$/m, "list", "nobody");
  await host.refuses(1, /is control domain|control domain/, "pause", "0");
  await host.done("create", "-q", host.cfg("taken"));
  await host.refuses(6, /^xl: Domain with name "taken" already exists\.$/m, "create", host.cfg("taken"));
  await host.refuses(5, /has no 4000 MiB left \(\d+ MiB are free\)/, "create", host.cfg("large", "memory = 4000"));
  await host.refuses(6, /xvda: .*absent.img cannot be opened: it does not exist/, "create", host.cfg("disk", `disk = [ "${join(host.folder, "absent.img")},raw,xvda,w" ]`));
  await host.refuses(6, /kernel: .*gone does not exist/, "create", host.cfg("kernel", "", "gone"));
  await host.refuses(1, /:6:8: vif: mac 1 is|vif: .*"1"[\s\S]*Failed to parse config/, "create", host.cfg("vif", 'vif = [ "mac=1" ]'));
  await host.refuses(1, /invalid memory size: many/, "mem-set", "taken", "many");
  await host.refuses(1, /cannot set domid \d+ dynamic max memory to : 64/, "mem-set", "taken", "64");
  await host.refuses(1, /There is a domain|name: /, "rename", "taken", "a/b");
  await host.refuses(1, /Error: Device xvdb not connected\./, "block-detach", "taken", "xvdb");
  await host.refuses(1, /Unknown device 7\./, "network-detach", "taken", "7");
  await host.refuses(1, /pci-attach is not built yet/, "pci-attach", "taken", "00:1.0");
  await host.done("destroy", "taken");
  await isClean();
});

test("a domain whose console cannot be kept is refused and does not run", async () => {
  const folder = join(host.paths.state, "console");
  rmSync(folder, { recursive: true });
  writeFileSync(folder, "");
  try { await host.refuses(6, /folder .* for console logs cannot be made/, "create", "-q", host.cfg("mute")); } finally {
    rmSync(folder);
    mkdirSync(folder, { mode: 0o700 });
  }
  await isClean();
});

test("a shared folder is in the domain's configuration, wherever its file lies, and one that is not there is told of before the domain is made", async () => {
  mkdirSync(join(host.folder, "given"));
  await host.done("create", "-q", host.cfg("sharer", `p9 = [ "tag=src,security_model=none,path=${host.folder}/given,readonly" ]`));
  assert.deepEqual(JSON.parse(await host.done("list", "-l", "sharer"))[0].config.p9s, [{ tag: "src", path: join(host.folder, "given"), security_model: "none", domus: { readonly: true } }]);
  await host.refuses(6, /other: p9: .*\/nowhere does not exist; make the folder/, "create", "-q", host.cfg("other", `p9 = [ "tag=src,security_model=none,path=${host.folder}/nowhere" ]`));
  await host.done("destroy", "sharer");
});

test("two disks of one name are refused before either is opened", async () => {
  const disks = ["a.img", "b.img"].map((name) => ({ pdev_path: host.file(name, new Uint8Array(4096)), vdev: "xvda", format: "raw" })), config = JSON.parse(await host.done("-N", "create", "-q", host.cfg("twice"))) as object;
  await assert.rejects(host.client.call("domain.create", { config: { ...config, disks } as never }), /xvda is taken already/);
  const { machines } = await host.client.call("host.status", {}), folder = `/proc/${machines[0]!.pid}/fd`;
  assert.deepEqual(readdirSync(folder).flatMap((fd) => { try { return [readlinkSync(join(folder, fd))]; } catch { return []; } }).filter((path) => path.endsWith(".img")), []);
  await isClean();
});

test("two who make a domain of one name: one has it, the other is told; two who end it: both are served", async () => {
  const file = host.cfg("raced"), ran = await Promise.all([host.xl("create", "-q", file), host.xl("create", "-q", file), host.xl("create", "-q", file)]);
  assert.deepEqual(ran.map((r) => r.code).sort(), [0, 6, 6], ran.map((r) => r.err).join(""));
  const ended = await Promise.all([host.xl("destroy", "raced"), host.xl("destroy", "raced")]);
  assert.ok(ended.some((r) => r.code === 0), JSON.stringify(ended));
  assert.deepEqual(await host.names(), []);
  const big = await Promise.all(["a", "b", "c"].map((n) => host.xl("create", "-q", host.cfg(n, "memory = 80"))));
  assert.ok(big.filter((r) => r.code === 0).length < 3 && big.every((r) => r.code === 0 || r.code === 5), big.map((r) => r.err).join(""));
  for (const name of await host.names()) await host.done("destroy", name);
  await isClean();
});

test("a client that vanishes leaves its task to finish; one that cancels gets nothing made", async () => {
  const text = await host.done("-N", "create", "-q", host.cfg("left")), config = JSON.parse(text) as never;
  const gone = new ApiClient(host.client.target), began = Promise.withResolvers<string>();
  const raw = await gone.stream("console", { domain: 4711 }).catch((e: ApiFault) => e);
  assert.equal((raw as ApiFault).code, "notfound");
  const call = spawn(process.execPath, ["-e", `
    const http = require("node:http"), body = JSON.stringify({ config: JSON.parse(process.argv[2]) });
    const req = http.request({ socketPath: process.argv[1], method: "POST", path: "/v1/domain.create", headers: { "content-length": Buffer.byteLength(body) } }, (res) => res.on("data", (d) => { process.stdout.write(d); }));
    req.end(body);`, host.paths.socket, text], { stdio: ["ignore", "pipe", "inherit"] });
  call.stdout.on("data", (d: Buffer) => { const id = /"task":"([^"]+)"/.exec(String(d))?.[1]; if (id) { call.kill("SIGKILL"); began.resolve(id); } });
  const task = await began.promise;
  assert.ok((await host.client.call("task.watch", { task }) as { domid: number }).domid > 0);
  assert.deepEqual(await host.names(), ["left"]);
  await host.until("domusd has it", async () => (await host.client.call("host.configs", {})).map((c) => `${c.name} ${c.state}`).join() === "left running");
  await host.done("destroy", "left");
  const cancel = new AbortController(), made = await host.client.call("domain.create", { config }, { signal: cancel.signal, task: () => cancel.abort() }).catch((e: ApiFault) => e.code);
  if (typeof made === "string") assert.equal(made, "cancelled");
  else await host.done("destroy", "left");       // it was quicker
  await isClean();
});

test("ends are acted on as the configuration says, and -F tells of them", async () => {
  const off = await host.xl("create", "-F", host.cfg("off", "", "halts"));
  assert.equal(off.code, 0, off.err);
  assert.match(off.err, /^Waiting for domain off \(domid (\d+)\) to die \[pid \d+\]\nDomain \1 has shut down, reason code 0 0x0\nAction for shutdown reason code 0 is destroy\nDomain \1 needs to be cleaned up: destroying the domain\nDone\. Exiting now\n$/m);
  const often = await host.xl("create", "-F", host.cfg("often", 'on_poweroff = "restart"', "halts"));
  assert.equal(often.code, 0, often.err);
  assert.match(often.err, /Done\. Rebooting now\n(?:.*\n)*Done\. Exiting now\n$/);
  await host.until("it is forgotten", async () => (await host.client.call("host.configs", {})).length === 0);
  await host.done("create", "-q", host.cfg("kept", 'on_crash = "preserve"', "faults"));
  await host.until("it has crashed", async () => /---sc-/.test(await host.done("list", "kept")));
  assert.match(await host.done("dmesg", "-c"), /kept crashed: Triple fault at 0x100000/);
  await host.refuses(1, /has shut down already/, "shutdown", "kept");
  await host.done("destroy", "kept");
  await host.done("create", "-q", host.cfg("again"));
  const first = await host.domid("again");
  await host.done("config-update", "again", host.cfg("again", "memory = 20"));
  await host.done("trigger", "again", "reset");
  await host.until("it is there again", async () => { const d = (await host.client.call("domain.list", {})).find((d) => d.name === "again"); return d !== undefined && d.domid !== first && d.targetKiB === 20 * 1024; });
  host.file("sleeps-later", readFileSync(join(host.folder, "sleeps")));
  await host.done("config-update", "again", host.cfg("again", "", "sleeps-later"));
  rmSync(join(host.folder, "sleeps-later"));
  await host.done("trigger", "again", "reset");
  await host.until("it is given up: its image, which is read for each life, is gone", async () => (await host.names()).length === 0);
  assert.match(await host.done("dmesg"), /again: kernel: .*sleeps-later does not exist/);
  await isClean();
});

test("what was set and plugged in while a domain ran holds in its next life, also after a config-update", async () => {
  await using two = await TestHost.start("--pcpus=2");
  type Listed = { domid: number; config: { b_info: Record<string, unknown>; disks?: { vdev: string }[]; nics?: { devid: number; mac: string }[] } };
  const now = async (): Promise<Listed> => (JSON.parse(await two.done("list", "-l", "set")) as Listed[])[0]!;
  const again = async (): Promise<Listed> => {
    const { domid } = await now();
    await two.done("trigger", "set", "reset");
    await two.until("it is there again", async () => ((await now().catch(() => null))?.domid ?? domid) !== domid);
    return now();
  };
  two.file("disk.raw", new Uint8Array(1 << 20));
  await two.done("create", "-q", two.cfg("set", 'maxmem = 24\nmaxvcpus = 3\nvif = ["mac=00:16:3e:00:00:01"]'));
  await two.done("sched-credit2", "-d", "set", "-w", "77", "-c", "50");
  await two.done("vcpu-pin", "set", "1", "0", "1");
  await two.done("vcpu-set", "set", "2");
  await two.done("mem-max", "set", "23");
  await two.done("mem-set", "set", "20");
  await two.done("block-attach", "set", `${join(two.folder, "disk.raw")},raw,xvdb,w`);
  await two.refuses(1, /an interface with the address 00:16:3e:00:00:01 already: number 0/, "network-attach", "set", "mac=00:16:3e:00:00:01");
  await two.done("network-attach", "set", "mac=00:16:3e:00:00:02");
  const set = { vcpu_hard_affinity: [[], [0], []], vcpu_soft_affinity: [[], [1], []], avail_vcpus: [0, 1], max_memkb: 23 * 1024, target_memkb: 20 * 1024, sched_params: { weight: 77, cap: 50 } };
  for (const { config } of [await now(), await again()]) {
    assert.deepEqual(Object.fromEntries(Object.keys(set).map((key) => [key, config.b_info[key]])), set);
    assert.deepEqual([config.disks?.map((d) => d.vdev), config.nics?.map((n) => n.mac)], [["xvdb"], ["00:16:3e:00:00:01", "00:16:3e:00:00:02"]]);
  }
  assert.match(await two.done("sched-credit2", "-d", "set"), /^set +\d+ +77 +50$/m);
  await two.done("config-update", "set", two.cfg("set", 'cmdline = "other"'));
  await two.done("block-detach", "--force", "set", "xvdb");
  await two.done("block-attach", "set", `${join(two.folder, "disk.raw")},raw,xvdc,r`);
  const { config } = await again();
  assert.deepEqual([config.b_info["cmdline"], config.disks?.map((d) => d.vdev), config.b_info["target_memkb"]], ["other", ["xvdc"], 16 * 1024]);
  await two.refuses(1, /a name of at least one letter/, "rename", "set", "");
});

test("a guest that knows nothing of Xen is saved, and restored under its number", async () => {
  await host.done("create", "-q", host.cfg("plain"));
  const domid = await host.domid("plain"), file = join(host.folder, "plain.save");
  await host.done("save", "-c", "plain", file);
  await host.refuses(3, new RegExp(`there is a domain ${domid} here|There is a domain named "plain" already`), "restore", file);
  await host.done("save", "plain", file);
  assert.deepEqual(await host.names(), []);
  await host.done("restore", file);
  assert.equal(await host.domid("plain"), domid);
  await host.until("it sleeps on", async () => /-b----/.test(await host.done("list", "plain")));
  await host.done("destroy", "plain");
});

test("a core has the guest's memory and registers, as readelf and Xen's format read it", async () => {
  const path = join(host.folder, "one.core");
  await host.done("create", "-q", host.cfg("dumped"));
  await host.until("the guest sleeps", async () => /-b----/.test(await host.done("list", "dumped")));
  await host.refuses(1, /cannot be written[\s\S]*core dump failed \(rc=-3\)/, "dump-core", "dumped", join(host.folder, "no", "where"));
  await host.done("dump-core", "dumped", path);
  assert.match(await host.done("list", "dumped"), / -b---- /);
  const elf = (...args: string[]): string => execFileSync("readelf", [...args, path], { encoding: "utf8" });
  assert.match(elf("-h"), /Type: +CORE[\s\S]*X86-64/);
  const sections = new Map([...elf("-SW").matchAll(/^ +\[ *\d+\] (\.\S+) +\S+ +\S+ (\S+) (\S+) (\S+)/gm)].map(([, name, offset, size, entry]) => [name!, { offset: Number.parseInt(offset!, 16), size: Number.parseInt(size!, 16), entry: Number.parseInt(entry!, 16) }]));
  assert.deepEqual([...sections.keys()], [".note.Xen", ".xen_prstatus", ".xen_shared_info", ".xen_pfn", ".xen_pages", ".shstrtab"]);
  const file = readFileSync(path), part = (name: string): Buffer => file.subarray(sections.get(name)!.offset, sections.get(name)!.offset + sections.get(name)!.size), pfns = new BigUint64Array(Uint8Array.from(part(".xen_pfn")).buffer);
  assert.equal(part(".xen_pages").length, pfns.length * 4096);
  const notes: [number, number][] = [], note = part(".note.Xen");
  for (let n = 0; n < note.length; n += 16 + Math.ceil(note.readUInt32LE(n + 4) / 4) * 4) notes.push([note.readUInt32LE(n + 8), note.readUInt32LE(n + 4)]);
  assert.deepEqual(notes, [[0x2000000, 0], [0x2000001, 32], [0x2000002, 8 + 8 + 16 + 144 + 1024 + 64 + 8 + 8], [0x2000003, 8]]);
  assert.deepEqual([note.readBigUInt64LE(32), note.readBigUInt64LE(40), Number(note.readBigUInt64LE(48)), note.readBigUInt64LE(56)], [0xf00febeen, 1n, pfns.length, 4096n]);
  const at = pfns.indexOf(0x100n);
  assert.deepEqual([...part(".xen_pages").subarray(at * 4096, at * 4096 + 4)], [0xfb, 0xf4, 0xeb, 0xfd]);
  assert.equal(part(".xen_prstatus").length, 5168);
  assert.equal(part(".xen_prstatus").readBigUInt64LE(520 + 128), 0x100002n);       // rip, behind the hlt
  await host.done("destroy", "dumped");
  await host.done("create", "-q", host.cfg("crasher", 'on_crash = "coredump-destroy"', "faults"));
  await host.until("it is dumped and gone", async () => (await host.names()).length === 0);
  const [dump] = readdirSync(join(host.paths.state, "dump"));
  assert.match(dump!, /^\d{8}-\d{6}-crasher\.\d+\.core$/);
  await isClean();
});

test("a console has several viewers and outlives a restart where that is asked for", async () => {
  await host.done("create", "-q", host.cfg("seen"));
  const [a, b] = [await host.client.stream("console", { domain: "seen", follow: true }), await host.client.stream("console", { domain: "seen" })];
  for (const s of [a, b]) s.on("data", () => {});
  await assert.rejects(host.client.stream("console", { domain: "seen", number: 3 }), /has no console 3/);
  await host.done("trigger", "seen", "reset");
  await once(b, "end");
  assert.equal(a.readableEnded, false);
  await host.until("the second life is there", async () => (await host.names()).length === 1);
  await host.done("destroy", "seen");
  await once(a, "end");
  for (const s of [a, b]) s.destroy();
  await isClean();
});

test("domusd is killed: machine and domains live on, and the next domusd knows them", async () => {
  await host.done("create", "-q", host.cfg("survivor"));
  await host.done("create", "-q", host.cfg("leaver", "", "sleeps"));
  const [{ pid, machines }, domid] = [await host.client.call("host.status", {}), await host.domid("survivor")];
  const watched = (async () => { for await (const _ of host.client.events()); })().catch(() => {});
  process.kill(pid, "SIGKILL");
  await host.until("it is dead", async () => startOf(pid) === null);
  await watched;       // who listened is not left to wait
  // while no daemon runs, a domain ends
  const machine = new ApiClient({ socketPath: machines[0]!.socket });
  await machine.call("domain.destroy", { domain: "leaver" });
  assert.equal(await host.domid("survivor"), domid);       // xl starts a daemon
  const now = await host.client.call("host.status", {});
  assert.deepEqual([now.machines[0]!.pid, now.lost], [machines[0]!.pid, []]);
  assert.notEqual(now.pid, pid);
  await host.until("the new daemon has it", async () => (await host.client.call("host.configs", {})).map((c) => `${c.name} ${c.state} ${c.domid}`).join() === `survivor running ${domid}`);
  const second = host.daemon("run");
  assert.equal(second.code, 2, second.err);
  assert.match(second.err, /A domusd runs on .* already/);
  await host.done("destroy", "survivor");
  await isClean();
});

test("a machine's process is killed: who died with it is said once, and kept on record until then", async () => {
  await host.done("create", "-q", host.cfg("victim"));
  const domid = await host.domid("victim"), { machines } = await host.client.call("host.status", {}), stayed = host.xl("create", "-F", host.cfg("other"));
  await host.until("both are there", async () => (await host.names()).length === 2);
  process.kill(machines[0]!.pid, "SIGKILL");
  const { code, err } = await stayed;
  assert.ok(code === 1 || code === 3, err);
  assert.match(err, /the machine is lost, and the domain with it|The machine died before it answered/);
  await host.until("the loss is written down", async () => (await host.client.call("host.status", {})).lost.length === 2);
  const listed = await host.xl("list");
  assert.match(listed.err, new RegExp(`^xl: the machine died \\(.*\\), and with it .*\\bvictim \\(${domid}\\)`, "m"));
  assert.deepEqual((await host.xl("list")).err, "");
  assert.deepEqual(await host.names(), []);
  await host.done("create", "-q", host.cfg("victim"));
  await host.done("destroy", "victim");
  await isClean();
});

test("xl starts a daemon where none runs, two at once start one, and it can be asked to end", async () => {
  const other = new TestHost();
  try {
    const [a, b] = await Promise.all([needDaemon(other.paths), needDaemon(other.paths)]);
    assert.equal((await a.call("host.status", {})).pid, (await b.call("host.status", {})).pid);
    assert.equal(readFileSync(other.paths.log, "utf8").match(/domusd serves/g)?.length, 1);
    assert.equal(statSync(other.paths.socket).mode & 0o777, 0o600);
    assert.equal(statSync(other.paths.run).mode & 0o777, 0o700);
    const { pid } = await a.call("host.status", {}), stopped = other.daemon("stop");
    assert.equal(stopped.code, 0, stopped.err);
    assert.equal(startOf(pid), null);        // it has ended, not only its socket
    assert.equal(existsSync(other.paths.socket), false);
    assert.equal(other.daemon("status").code, 1);
  } finally {
    await other[Symbol.asyncDispose]();
  }
});

test("an address that cannot be served is refused and not kept, and leaves no machine behind", async () => {
  await using other = new TestHost();
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { code, err } = other.daemon("start", "--memory=96", "--pcpus=1", "--net=none", `--http=127.0.0.1:${(taken.address() as AddressInfo).port}`);
  taken.close();
  assert.notEqual(code, 0);
  assert.match(err, /127\.0\.0\.1:\d+ cannot be served: EADDRINUSE/);
  const state = await HostState.open(other.paths.database);
  assert.deepEqual([state.machines(), state.setting("http")], [[], null]);
  state.close();
  assert.equal(existsSync(other.paths.socket), false);
});

test("neither a token nor a guest's memory leaves for another computer without TLS", async () => {
  await host.done("create", "-q", host.cfg("secret"));
  const heard = Promise.withResolvers<Buffer>(), peer = createServer((socket) => { socket.on("error", () => {}).once("data", (bytes) => { heard.resolve(Buffer.from(bytes)); socket.destroy(); }); }).listen(0, "0.0.0.0");
  await once(peer, "listening");
  await assert.rejects(host.client.call("domain.migrate", { domain: "secret", to: `0.0.0.0:${(peer.address() as AddressInfo).port}`, token: "s".repeat(43) }));
  peer.close();
  assert.equal((await heard.promise)[0], 0x16);        // a TLS handshake, RFC 8446 5.1
  await host.done("destroy", "secret");
});

test("domusd that is asked to end while domains are there refuses, unless it is meant", async () => {
  await host.done("create", "-q", host.cfg("stays"));
  const { code, err } = host.daemon("stop");
  assert.equal(code, 2, err);
  assert.match(err, /stays would end with the machine; shut it down first/);
  assert.deepEqual(await host.names(), ["stays"]);
  await host.done("destroy", "stays");
  const r = spawnSync(process.execPath, [`${root}bin/xl`, `--state=${host.paths.state}`, "list", "-x"], { encoding: "utf8" });
  assert.deepEqual([r.status, r.stderr], [2, "option `x' not supported.\n"]);
});
