/** A stock Debian under xl: its console, its devices, its memory; saved, restored, and moved from one host to another. */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { after, before, test } from "node:test";
import type { Result } from "../src/api/actions.ts";
import { images, imagesMissing, root } from "./guest.ts";
import { TestHost } from "./host.ts";

/** Long enough for a loaded machine; what takes longer hangs. */
const PATIENCE_MS = 240_000;

/** A shell at the other end of a console. */
class Shell {
  out = "";
  readonly #socket: Duplex;
  #from = 0;
  #wake: () => void = () => {};
  #nr = 0;
  constructor(socket: Duplex) {
    this.#socket = socket;
    socket.on("data", (b: Buffer) => { this.out += b.toString("latin1"); this.#wake(); });
    socket.on("error", () => {});
  }
  async expect(pattern: RegExp): Promise<RegExpExecArray> {
    const timer = setTimeout(() => { this.#nr = Number.NaN; this.#wake(); }, PATIENCE_MS);
    try {
      for (;;) {
        const m = pattern.exec(this.out.slice(this.#from));
        if (m) { this.#from += m.index + m[0].length; return m; }
        if (Number.isNaN(this.#nr)) throw new Error(`never said ${pattern}; its last words:\n${this.out.slice(-1500)}`);
        await new Promise<void>((go) => { this.#wake = go; });
      }
    } finally { clearTimeout(timer); }
  }
  /** Run a command. @returns what it printed */
  async run(command: string): Promise<string> {
    const nr = ++this.#nr;
    this.#socket.write(`echo @"@"b${nr}; ${command}; echo @"@"e${nr} $?\n`);
    await this.expect(new RegExp(`@@b${nr}\\r\\n`));
    const [all, code] = await this.expect(new RegExp(`[^]*?@@e${nr} (\\d+)\\r\\n`)), text = all.slice(0, all.lastIndexOf("@@e")).replaceAll("\r\n", "\n");
    assert.equal(code, "0", `${command}: ${text}`);
    return text.trim();
  }
  close(): void { this.#socket.destroy(); }
}

let host: TestHost, other: TestHost, shell: Shell;
const missing = imagesMissing();
before(async () => {
  if (missing) return;
  host = new TestHost();
  host.certificates({ host: "/OU=operate/CN=a", other: "/OU=operate/CN=b" });
  for (const [h, name] of [[host, "host"], [other = new TestHost(), "other"]] as const) assert.equal(h.daemon("start", "--memory=160", "--pcpus=1", "--net=none", `--folders=${dirname(images().kernel)}`, ...TestHost.tls(host, name)).code, 0);
});
after(async () => {
  shell?.close();
  await host?.[Symbol.asyncDispose]();
  await other?.[Symbol.asyncDispose]();
});

/** What the guest's interface sends is in a file of `domus net capture`, by tshark's word. */
async function captured(shell: Shell): Promise<void> {
  const domus = (...args: string[]): string[] => [`${root}bin/domus`, "net", ...args, `--state=${host.paths.state}`], file = join(host.folder, "arp.pcapng");
  const [bridge] = JSON.parse(execFileSync(process.execPath, domus("list", "--json"), { encoding: "utf8" })) as Result<"net.list">, vif = bridge!.ports.find((p) => /^vif\d+\.0$/.test(p.name))!;
  assert.equal(bridge!.name, "xenbr0");
  const capture = spawn(process.execPath, domus("capture", vif.name, "--write", file, "--filter", "arp"), { stdio: "ignore" }), ended = once(capture, "exit");
  await host.until("the capture has begun", async () => existsSync(file) && statSync(file).size > 0);
  await shell.run("ip link set eth0 up; ip address add 192.168.7.2/24 dev eth0; ping -c 1 -W 1 192.168.7.9 >/dev/null; true");
  await host.until("the frame is in it", async () => statSync(file).size > 300);
  capture.kill("SIGINT");
  assert.deepEqual(await ended, [0, null]);
  assert.match(execFileSync("tshark", ["-r", file, "-Y", "arp.dst.proto_ipv4 == 192.168.7.9"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }), /Who has 192\.168\.7\.9/);
  const none = spawnSync(process.execPath, domus("capture", "nobr", "--write", file), { encoding: "utf8" });
  assert.equal(none.status, 2);
  assert.match(none.stderr, /There is no bridge and no port "nobr"; there are xenbr0, vif/);
}

test("a stock Debian boots under xl, and is given a disk, a disc, and a memory target", { skip: missing }, async () => {
  const { kernel, ramdisk } = images(), disc = (name: string, text: string): string => host.file(name, Buffer.concat([Buffer.from(text), Buffer.alloc(65536 - text.length)]));
  await host.done("create", "-q", host.file("debian.cfg", `name = "debian"; type = "pvh"; memory = 96; maxmem = 120; kernel = "${kernel}"; ramdisk = "${ramdisk}"; extra = "console=hvc0 quiet"; on_reboot = "restart"
disk = [ ",empty,hdc,r,devtype=cdrom" ]; vif = [ "mac=00:16:3e:00:00:07" ]`));
  shell = new Shell(await host.client.stream("console", { domain: "debian", follow: true }));
  await shell.expect(/# (?:\x1b\[6n)?$/);
  await shell.run("stty -echo; PS1=");
  const disk = host.file("data.img", Buffer.alloc(1 << 20)), second = new Shell(await host.client.stream("console", { domain: "debian" }));
  await host.done("block-attach", "debian", `${disk},raw,xvdb,w`);
  await host.refuses(1, /xvdb already[\s\S]*libxl_device_disk_add failed/, "block-attach", "debian", `${disk},raw,xvdb,w`);
  await shell.run("until [ -b /dev/xvdb ]; do sleep 0.2; mdev -s 2>/dev/null; done; echo written > /dev/xvdb; sync");
  assert.match(await host.done("block-list", "debian"), /^51728 0 {3}51728 {2}4 {5}\d+ +\d+ +\/local\/domain\/0\/backend\/vbd\/\d+\/51728 *$/m);
  assert.match(await host.done("network-list", "debian"), /^0 {3}0 {2}00:16:3e:00:00:07 {6}0 {5}4 /m);
  await captured(shell);
  await host.done("cd-insert", "debian", "hdc", disc("one.iso", "first disc"));
  await shell.run("until [ \"$(cat /sys/block/xvdc/size 2>/dev/null || cat /sys/block/hdc/size)\" = 128 ]; do sleep 0.2; done");
  assert.match(await shell.run("D=$(ls -d /dev/xvdc /dev/hdc 2>/dev/null | head -1); head -c 10 $D"), /first disc/);
  await host.done("cd-eject", "debian", "hdc");
  await shell.run("until [ \"$(cat /sys/block/xvdc/size 2>/dev/null || cat /sys/block/hdc/size)\" = 0 ]; do sleep 0.2; done");
  await host.refuses(1, /has no drive hdd/, "cd-insert", "debian", "hdd", disc("two.iso", "x"));
  await host.done("mem-set", "debian", "90");
  await host.until("the balloon has it", async () => (await host.client.call("domain.list", { domain: "debian" }))[0]!.memoryKiB < 92 * 1024);
  await host.done("trigger", "debian", "nmi");
  await shell.run("until dmesg | grep -q 'NMI.* on CPU 0'; do sleep 0.2; done");
  await host.refuses(1, /debian has no vCPU 3 that is on line/, "trigger", "debian", "nmi", "3");
  await host.done("block-detach", "debian", "xvdb");
  assert.doesNotMatch(await host.done("block-list", "debian"), /51728/);
  await second.expect(/@@e\d+ 0/);       // it has seen all of it
  second.close();
});

test("it is saved, stands in its file as it was, and goes on from there", { skip: missing }, async () => {
  await shell.run("X=remembered");
  const file = join(host.folder, "debian.save"), before1 = await host.domid("debian");
  await host.refuses(1, /cannot be written: its folder does not exist[\s\S]*Failed to save domain/, "save", "debian", join(host.folder, "no", "where"));
  await host.done("save", "debian", file);
  assert.deepEqual(await host.names(), []);
  assert.ok(statSync(file).size > 1 << 20);
  const damaged = join(host.folder, "damaged.save");
  writeFileSync(damaged, "Xen saved domain, xl format\n \0 \rgarbage");
  await host.refuses(3, /^xl: /m, "restore", damaged);
  await host.refuses(3, /does not exist/, "restore", join(host.folder, "none.save"));
  await host.done("restore", file);
  assert.notEqual(await host.domid("debian"), before1);
  // domusd hears of it by the machine's events
  await host.until("domusd has it", async () => (await host.client.call("host.configs", {})).map((c) => `${c.name} ${c.state}`).join() === "debian running");
  await host.refuses(3, /There is a domain named "debian" already/, "restore", file);
  shell.close();
  shell = new Shell(await host.client.stream("console", { domain: "debian", follow: true }));
  assert.equal(await shell.run("echo $X"), "remembered");
});

/** Where its daemon serves HTTP. */
const at = async (h: TestHost): Promise<string> => `localhost:${new URL((await h.client.call("host.status", {})).http!).port}`;
test("it moves to another host while it runs, back by TLS between the daemons", { skip: missing }, async () => {
  const receive = `exec ${process.execPath} ${root}bin/xl --state=${other.paths.state} migrate-receive`;
  await other.done("create", "-q", other.cfg("debian"));
  const refused = await host.xl("migrate", "-s", "", "debian", receive);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /There is a domain named "debian" already[\s\S]*Migration failed, resuming at sender\./);
  assert.equal(await shell.run("echo $X"), "remembered");
  await other.done("destroy", "debian");
  const there = host.file("there.cfg", readFileSync(join(host.folder, "debian.cfg"), "utf8").replace('name = "debian"', 'name = "another"').replace("quiet", "quiet moved"));
  const moved = await host.xl("migrate", "--debug", "-C", there, "-s", "", "debian", receive);
  assert.equal(moved.code, 0, moved.err);
  assert.match(moved.err, /the guest stood still for \d+ ms\n(?:.*\n)*Migration successful\.$/m);
  assert.deepEqual([await host.names(), await other.names()], [[], ["debian"]]);
  assert.match(await other.done("list", "-l", "debian"), /"console=hvc0 quiet moved"/);
  await host.until("domusd has heard of its end", async () => (await host.client.call("host.configs", {})).length === 0);
  shell.close();
  shell = new Shell(await other.client.stream("console", { domain: "debian", follow: true }));
  assert.equal(await shell.run("echo $X"), "remembered");
  await other.refuses(1, /nobody answers|ECONNREFUSED[\s\S]*Migration failed, resuming at sender/, "migrate", "debian", "localhost:1");
  const back = await other.xl("migrate", "--debug", "debian", await at(host));
  assert.equal(back.code, 0, back.err);
  shell.close();
  shell = new Shell(await host.client.stream("console", { domain: "debian", follow: true }));
  assert.equal(await shell.run("echo $X"), "remembered");
});

test("busy with its memory it moves before that is there, and a connection that breaks meanwhile is made again; then it shuts down", { skip: missing }, async () => {
  await shell.run("mkdir -p /tmp/w; mount -t tmpfs none /tmp/w; dd if=/dev/urandom of=/tmp/w/a bs=64k count=64 2>/dev/null; sha1sum < /tmp/w/a > /tmp/w/sum; (while :; do cp /tmp/w/a /tmp/w/b; done) & true");
  const line = ["migrate", "--debug", "--postcopy", "--bandwidth", "14m"];
  // by a pipe
  const away = await host.xl(...line, "-s", "", "debian", `exec ${process.execPath} ${root}bin/xl --state=${other.paths.state} migrate-receive`);
  assert.equal(away.code, 0, away.err);
  assert.match(away.err, /the guest stood still for \d+ ms, \d{3,} pages went behind it in [\d.]+ s\n(?:.*\n)*Migration successful\.$/m);
  assert.deepEqual([await host.names(), await other.names()], [[], ["debian"]]);
  // by the daemons, over a wire that is cut when it has gone ahead
  const port = Number((await at(host)).split(":")[1]), ends = new Set<Socket>();
  const wire = createServer((a) => {
    const b = connect(port, "127.0.0.1");
    for (const [from, to] of [[a, b], [b, a]] as const) {
      ends.add(from);
      from.on("error", () => {}).on("close", () => { ends.delete(from); to.destroy(); }).pipe(to);
    }
  }).listen(0, "127.0.0.1");
  await once(wire, "listening");
  const back = other.xl(...line, "debian", `localhost:${(wire.address() as AddressInfo).port}`);
  let nrCuts = 0;
  await other.until("it has gone ahead", async () => (await other.client.call("task.list", {})).some((t) => t.action === "domain.migrate" && t.progress?.text === "memory behind it"));
  for (const end of ends) { end.destroy(); nrCuts++; }
  const { code, err } = await back;
  wire.close();
  assert.equal(code, 0, err);
  assert.ok(nrCuts > 0);
  assert.match(await other.done("dmesg"), /debian: the link broke while its memory followed it \(.*\); it goes on over another one/);
  assert.deepEqual([await host.names(), await other.names()], [["debian"], []]);
  shell.close();
  shell = new Shell(await host.client.stream("console", { domain: "debian", follow: true }));
  assert.equal(await shell.run("kill %1; cp /tmp/w/a /tmp/w/b; echo $X; for f in a b; do sha1sum < /tmp/w/$f | cmp - /tmp/w/sum; done && echo whole"), "remembered\nwhole");
  const ended = await host.xl("shutdown", "-w", "debian");
  assert.equal(ended.code, 0, ended.err);
  assert.match(ended.err, /^Shutting down domain (\d+)\nWaiting for 1 domains\nDomain \1 has been shut down, reason code 0\n$/);
  await host.until("it is gone", async () => (await host.names()).length === 0);
  assert.equal(existsSync(join(other.paths.state, "console", "debian.log")), true);
});
