/** The JSON that we write of a configuration (src/toolstack/libxl-json.ts) against what Debian's xl writes of the same file, and the way back. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromXl } from "../../src/toolstack/config.ts";
import { fromLibxl, toLibxl } from "../../src/toolstack/libxl-json.ts";
import { applySetting, parseXlCfg } from "../../src/toolstack/xlcfg.ts";
import { askXl } from "./oracle.node.ts";

const UUID = "c0e39f23-1f41-4c62-94f8-523f06b27769";
const head = (rest: string): string => `name = "tiny"\ntype = "pvh"\nuuid = "${UUID}"\nkernel = "/boot/k"\n${rest}`;
function ours(text: string): unknown {
  const settings = parseXlCfg(text, "tiny.cfg");
  return toLibxl(fromXl(settings, "tiny.cfg").domain, settings);
}
const FILES: Readonly<Record<string, string>> = {
  least: "memory = 64",
  "no memory": "",
  ramdisk: 'memory = 256\nmaxmem = 512\nramdisk = "/boot/r"\nextra = "console=hvc0"',
  "maxmem alone": "maxmem = 128",
  "root and extra": 'memory = 64\nroot = "/dev/xvda1 ro"\nextra = "quiet"',
  "root alone": 'memory = 64\nroot = "/dev/xvda1"',
  cmdline: 'memory = 64\ncmdline = "a b"\nextra = "c"',
  "octal and hexadecimal": "memory = 0x40\nmaxmem = 0200\n",
  "quoted numbers": 'memory = "64"\nmaxmem = "0x80"',
  actions: 'memory = 64\non_poweroff = "preserve"\non_reboot = "destroy"\non_crash = "restart"',
  "more actions": 'memory = 64\non_poweroff = "rename-restart"\non_reboot = "coredump-restart"\non_crash = "coredump-destroy"',
  disks: 'memory = 64\ndisk = [ "/x.img,raw,xvda,rw", "vdev=xvdb,access=ro,format=qcow2,target=/y.qcow2", "/z,,xvdc,w,discard", "/a,,xvdd,no-discard", "/d,raw,xvde,r,direct-io-safe,backendtype=qdisk" ]',
  cdrom: 'memory = 64\ndisk = [ "/c.iso,raw,hdc,r,devtype=cdrom", ",empty,hdd,r,devtype=cdrom" ]',
  "old prefixes": 'memory = 64\ndisk = [ "file:/x.img,xvda,w", "phy:/dev/vg/x,xvdb,r", "tap:qcow2:/q,xvdc,w" ]',
  vifs: 'memory = 64\nvif = [ "bridge=xenbr0,mac=00:16:3e:11:22:33", "mac=00:16:3e:11:22:34,rate=10Mb/s", "" ]',
  "vifs in full": 'memory = 64\nvif = [ "mac=00:16:3e:11:22:33,ip=10.0.0.2 10.0.0.3,script=vif-r,vifname=web,mtu=9000,model=e1000,type=vif,gatewaydev=eth0,rate=100KB/s@20ms" ]',
  channels: 'memory = 64\nchannel = [ "name=a,connection=socket,path=/tmp/s" ]',
  folders: 'memory = 64\np9 = [ "tag=src,security_model=none,path=/srv/a b", "path=/srv/c=d, tag=other, security_model=none" ]',
  vcpus: "memory = 64\nvcpus = 2\nmaxvcpus = 4",
  "hard affinity": 'memory = 64\nvcpus = 2\ncpus = "0-1"',
  "affinity of each": 'memory = 64\nvcpus = 2\ncpus = ["0", "1"]\ncpus_soft = ["1", "0"]',
  weights: "memory = 64\ncpu_weight = 512\ncap = 50",
  deadlines: "memory = 64\nperiod = 10000\nextratime = 1",       // xl reads no "budget", which xl.cfg(5) does not name either; ours does
  pool: 'memory = 64\npool = "Pool-0"',
  "several on a line": "memory = 64; maxmem = 65",
  "appended": 'memory = 64\nextra = "a"\nextra += " b"\ndisk = [ "/x,raw,xvda,r" ]\ndisk += [ "/y,raw,xvdb,r" ]',
  comments: "# first\nmemory = 64 # behind\n\n# last\n",
  escapes: 'memory = 64\nextra = "a \\"b\\" c"',
};

test("a configuration's JSON is Debian's xl's", () => {
  for (const [name, rest] of Object.entries(FILES)) {
    const xl = askXl(head(rest));
    assert.ok(xl.config, `${name}: ${xl.said}`);
    assert.deepEqual(ours(head(rest)), filledIn(xl.config), name);
  }
});
/** What xl leaves open here libxl fills in when the domain is made: 32 MiB, the maximum as target, one vCPU. We write what holds. */
function filledIn(config: object): object {
  const { b_info, ...rest } = config as { b_info: { max_memkb?: number; target_memkb?: number; max_vcpus?: number } }, max_memkb = b_info.max_memkb ?? b_info.target_memkb ?? 32 * 1024;
  return { ...rest, b_info: { max_vcpus: 1, avail_vcpus: [0], ...b_info, max_memkb, target_memkb: b_info.target_memkb ?? max_memkb } };
}

test("what xl refuses of a file we refuse", () => {
  for (const text of ['name = "x"\ntype = "pvh"\nkernel = "/k"\nmemory = [', 'name = "x"\ntype = "pvh"\nkernel = "/k"\nmemory = 64 65', 'type = "pvh"\nkernel = "/k"', 'name = "x"\ntype = "vmware"\nkernel = "/k"',
    head('on_crash = "explode"'), head('uuid = "123"'), head('disk = [ "/x,raw,xvda,q" ]'), head('channel = [ "connection=tin" ]'), head('channel = [ "connection=socket" ]'), head('p9 = [ "tag=a,path=/x" ]'), head('p9 = [ "" ]'), head('p9 = [ "Tag=a,security_model=none,path=/x" ]'), head('p9 = [ "tag=a,security_model=none,readonly=1,path=/x" ]'), head('memory = "64')]) {
    assert.equal(askXl(text).config, null, text);
    assert.throws(() => ours(text), { name: "UserError" }, text);
  }
});

test("where we refuse a file that xl reads, it is on purpose", () => {
  // xl goes on with a word that is no number as if nothing had been said; a taken vdev and a maximum below memory are found by libxl when the domain is made
  for (const rest of ['memory = "many"', "memory = 0", 'memory = 64\nmaxmem = 32', 'memory = 64\ndisk = [ "/x,raw,xvda,r", "/y,raw,xvda,r" ]', "memory = 64\nvcpus = 0"]) {
    assert.ok(askXl(head(rest)).config, rest);
    assert.throws(() => ours(head(rest)), { name: "UserError" }, rest);
  }
});

test("JSON leads back to the same domain", () => {
  for (const [name, rest] of Object.entries(FILES)) {
    const settings = parseXlCfg(head(rest), "tiny.cfg"), domain = fromXl(settings, "tiny.cfg").domain, json = toLibxl(domain, settings, { isComplete: true });
    const back = fromLibxl(JSON.parse(JSON.stringify(json)));
    const plain = (d: typeof back): unknown => JSON.parse(JSON.stringify({ ...d, config: { ...d.config, vifs: d.config.vifs?.map((v, i) => ({ ...v, mac: json.nics![i]!.mac })) } }, (key, value) => (key === "place" || key === "text" || key === "warnings" ? undefined : value)));
    const withDrives = { ...domain, disks: back.disks.filter((d) => d.format === "empty").concat(domain.disks) };
    const sorted = (d: typeof back): typeof back => ({ ...d, disks: [...d.disks].sort((a, b) => a.device - b.device) });
    assert.deepEqual(plain(sorted(back)), plain(sorted(withDrives)), name);
  }
});

test("a value with a comma cannot smuggle a key in", () => {
  const settings = parseXlCfg(head('memory = 64\ndisk = [ "/x,raw,xvda,r" ]\nvif = [ "" ]'), "f"), json = toLibxl(fromXl(settings, "f").domain, settings);
  assert.throws(() => fromLibxl({ ...json, disks: [{ ...json.disks![0]!, script: "a,access=rw" }] }), /has a comma/);
  assert.throws(() => fromLibxl({ ...json, nics: [{ devid: 0, bridge: "x,mac=00:16:3e:00:00:01" }] }), /has a comma/);
  assert.equal(fromLibxl({ ...json, disks: [{ ...json.disks![0]!, pdev_path: "/a,b=c,w" }] }).disks[0]!.target, "/a,b=c,w");
});

test("settings of the command line override the file's as with xl", () => {
  const settings = parseXlCfg(head("memory = 64"), "f");
  for (const word of ["memory=128", "name=other", 'extra="a b"']) applySetting(settings, word);
  const json = toLibxl(fromXl(settings, "f").domain, settings);
  assert.deepEqual([json.b_info.target_memkb, json.c_info.name, json.b_info.cmdline], [131072, "other", "a b"]);
});
