/** Disks and networks of `domus run` as its user meets them: what cannot be had is refused in a line that names it, before anything is started. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openNodeFile } from "../src/storage/file.node.ts";
import { domus, Guest, images, imagesMissing, xlCfg } from "./guest.ts";
import { tinyKernel } from "./tiny-kernel.ts";

const folder = mkdtempSync(join(tmpdir(), "domus-devices-cli-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const file = (name: string, content: string | Uint8Array): string => { writeFileSync(join(folder, name), content); return name; };
file("halts", tinyKernel([0xfa, 0xf4]));
file("raw", new Uint8Array(65536));
execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", join(folder, "qcow2"), "1M"]);

let nr = 0;
/** A configuration whose guest powers off at once. */
const cfg = (devices: string): string => file(`c${++nr}.cfg`, `name = "c${nr}"\ntype = "pvh"\nmemory = 16\nkernel = "halts"\n${devices}\n`);
function run(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, [domus, "run", ...args], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    let out = "", err = "";
    child.stdout.on("data", (b) => { out += b; });
    child.stderr.on("data", (b) => { err += b; });
    child.on("error", failed);
    child.on("close", (code) => done({ code, out, err }));
  });
}
async function refuses(message: RegExp, ...args: string[]): Promise<void> {
  const { code, out, err } = await run(...args), told = `domus run ${args.join(" ")}: code ${code}\n${err}`;
  assert.equal(code, 2, told);
  assert.equal(out, "", told);
  assert.match(err, message, told);
  assert.equal(err.trimEnd().split("\n").length, 1, told);
}
async function runs(...args: string[]): Promise<string> {
  const { code, err } = await run(...args);
  assert.equal(code, 0, err);
  return err;
}

test("a disk that cannot be had is refused at its place", async () => {
  await refuses(/c\d+\.cfg:5:9: xvda: .*absent.* does not exist/, cfg('disk = ["absent,raw,xvda,w"]'));
  await refuses(/c\d+\.cfg:5:29: xvdb: \S*raw is not a qcow2 image/, cfg('disk = ["qcow2,qcow2,xvda", "raw,qcow2,xvdb,w"]'));
  await refuses(/c\d+\.cfg:5:9: xvda: raw: format "vhd" is none of|c\d+\.cfg:5:9: xvda: .*[Vv][Hh][Dd]/, cfg('disk = ["raw,vhd,xvda,w"]'));
  await refuses(/"xvd1" is no virtual device/, cfg('disk = ["raw,raw,xvd1,w"]'));
  await refuses(/c\d+\.cfg:5:\d+: disk: xvda is taken already, by "raw,raw,xvda,w"/, cfg('disk = ["raw,raw,xvda,w", "qcow2,qcow2,xvda,w"]'));
  await refuses(/c\d+\.cfg:5:\d+: disk: d0 is taken already, by "raw,raw,xvda,r" at .* as xvda/, cfg('disk = ["raw,raw,xvda,r", "raw,raw,d0,r"]'));
});

test("an image that somebody writes is refused, and its writer named", async () => {
  await refuses(/c\d+\.cfg:5:27: xvdb: .*raw is open for writing already, in this process/, cfg('disk = ["raw,raw,xvda,w", "raw,raw,xvdb,w"]'));
  const held = await openNodeFile(join(folder, "raw"), "write");
  await refuses(new RegExp(`xvda: .*raw is open for writing already, in process ${process.pid}`), cfg('disk = ["raw,raw,xvda,w"]'));
  await held.close();
  await runs(cfg('disk = ["raw,raw,xvda,w"]'));
});

test("a qcow2 image that is called raw is a raw disk, and is not changed by being one", async () => {
  const before = readFileSync(join(folder, "qcow2"));
  assert.equal(await runs(cfg('disk = ["qcow2,raw,xvda,w"]')), "");
  assert.deepEqual(readFileSync(join(folder, "qcow2")), before);
});

test("interfaces and forwards that cannot be had are refused", async () => {
  const vif = cfg('vif = [""]');
  await refuses(/c\d+\.cfg:5:\d+: vif: mac 00:16:3e:00:00:01 is taken already/, cfg('vif = ["mac=00:16:3e:00:00:01", "mac=00:16:3e:00:00:01"]'));
  await refuses(/c\d+\.cfg:5:8: vif: forward: "tcp:2222-22" is not tcp:HOSTADDR:HOSTPORT-GUESTPORT/, cfg('vif = ["forward=tcp:2222-22"]'));
  await refuses(/"--forward": .*"tcp:many-22"/, "--forward", "tcp:many-22", vif);
  await refuses(/"--forward": .*"sctp:2222-22"/, "--forward=sctp:2222-22", vif);
  await refuses(/"--forward": Forward "tcp:2222": is not of the form protocol:\[address:\]port-port$/m, "--forward", "tcp:2222", vif);
  await refuses(/"--forward": Forward "tcp:1-fd00::5:22": an IPv6 address stands in brackets, "\[fd00::5\]"/, "--forward", "tcp:1-fd00::5:22", vif);
  await refuses(/Forward "tcp:\[::1\]:1-\[fd00::5\]:22": guest "fd00::5" is not an address of a host in fd64:6f6d:7573:2::\/64/, "--forward", "tcp:[::1]:1-[fd00::5]:22", vif);
  await refuses(/Forward ".*": the guest's address is one of IPv6, which this network does not have/, "--ipv6=none", cfg('vif = ["forward=tcp:127.0.0.1:1-[fd64:6f6d:7573:2::5]:22"]'));
  await refuses(/"--ipv6" is one of auto, always, local, none, not "maybe"/, "--ipv6", "maybe", vif);
  await refuses(/Policy rule "deny fd00::1": an IPv6 address stands in brackets/, "--net-rules", "deny fd00::1", vif);
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as AddressInfo;
  await refuses(new RegExp(`127\\.0\\.0\\.1.*${port}`), "--forward", `tcp:${port}-22`, vif);
  taken.close();
  await refuses(/"--forward": c\d+ has no network interface; give it one with vif = \[ "" \]/, "--forward", "tcp:2222-22", cfg(""));
  await refuses(/"--forward" is for one domain/, "--forward", "tcp:2222-22", vif, cfg('vif = [""]'));
  await refuses(/cannot be forwarded: xenbr0 has no router/, "--net=none", "--forward", "tcp:2222-22", vif);
  await refuses(/"--net" is one of nat, none, tap:NAME and tap:NAME,bridge=BRIDGE, not "tap"/, "--net", "tap", vif);
  await refuses(/The capture cannot be written to absent\/x\.pcapng: /, "--capture", "absent/x.pcapng", vif);
});

test("a capture of what a Debian guest sends is read by tshark; without a network there is no address", { skip: imagesMissing() }, async () => {
  const start = async (...options: string[]): Promise<Guest> => {
    const path = join(folder, `net${options.length}.cfg`);
    writeFileSync(path, `${xlCfg("net", images(), 128)}vif = ["mac=00:16:3e:01:02:03"]\n`);
    const guest = new Guest(process.execPath, [domus, "run", path, ...options], { cwd: folder });
    await guest.takeShell(300_000);
    return guest;
  };
  const off = async (guest: Guest): Promise<void> => {
    guest.write("poweroff\n");
    assert.equal((await guest.ended(120_000)).code, 0, guest.err);
  };
  await using guest = await start("--capture", "net.pcapng", "--quiet");
  await using alone = await start("--net=none");
  assert.match((await guest.run("ip -4 address show dev eth0")).out, /inet 10\.0\.2\.\d+\/24/);
  assert.equal((await alone.run("ip -4 address show dev eth0")).out, "");
  await Promise.all([off(guest), off(alone)]);
  assert.ok(existsSync(join(folder, "net.pcapng")));
  const fields = execFileSync("tshark", ["-r", join(folder, "net.pcapng"), "-Y", "dhcp", "-T", "fields", "-E", "occurrence=f", "-e", "dhcp.hw.mac_addr", "-e", "dhcp.option.dhcp"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  assert.deepEqual(fields.trim().split("\n").slice(-4).map((line) => line.split("\t")), ["1", "2", "3", "5"].map((type) => ["00:16:3e:01:02:03", type]));
});
