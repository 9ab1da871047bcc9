/**
 * A stock Debian kernel with disks of this process: its own blkfront and ext4 against our back ends and formats, judged by e2fsck and qemu-img. One guest carries all
 * checks, because a boot takes seconds; they build on one another in the order they stand.
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { dom0Ends } from "../src/drivers/dom0.ts";
import { BlockBack } from "../src/drivers/block/back.ts";
import { XenbusBack } from "../src/drivers/xenbus.ts";
import { nrGrantFrames } from "../src/hypervisor/grant_table.ts";
import { type Disk, DiskError } from "../src/storage/disk.ts";
import { NodeStore } from "../src/storage/file.node.ts";
import { openDisk } from "../src/storage/open.ts";
import { attachDisk } from "../src/toolstack/block.ts";
import { nodeHost } from "../src/toolstack/host.node.ts";
import { createMachine, type Machine } from "../src/toolstack/machine.ts";
import { vdevNumber } from "../src/toolstack/xldisk.ts";
import { deviceEntries } from "../src/xenstore/device-entries.ts";
import { imagesMissing } from "./guest.ts";
import { Talk } from "./talk.ts";

const MIB = 2 ** 20;
const folder = mkdtempSync(join(tmpdir(), "domus-devices-")), path = (name: string): string => join(folder, name);
after(() => rmSync(folder, { recursive: true, force: true }));
const sha1 = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex");
const sum = (text: string): string => text.split(" ")[0]!;

/** An ext4 of so many MiB, with what is in `from`. */
function ext4(name: string, mib: number, from?: string): string {
  execFileSync("/usr/sbin/mke2fs", ["-q", "-t", "ext4", ...(from === undefined ? [] : ["-d", from]), path(name), `${mib}M`]);
  return path(name);
}
/** e2fsck finds nothing to mend. */
function sound(image: string): void {
  const ran = spawnSync("/usr/sbin/e2fsck", ["-fn", image], { encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stdout + ran.stderr);
}
const store = new NodeStore(), open = (name: string, format: string, isReadonly = false): Promise<Disk> => openDisk({ path: path(name), format, store, isReadonly });

/** A disk that counts, and fails when told to. */
class Meddled implements Disk {
  readonly disk: Disk;
  readonly nr = { read: 0, write: 0, flush: 0, discard: 0 };
  /** asked before each operation */
  fault: (kind: keyof Meddled["nr"]) => DiskError | null = () => null;
  constructor(disk: Disk) { this.disk = disk; }
  get name(): string { return this.disk.name; }
  get format(): string { return this.disk.format; }
  get sizeBytes(): number { return this.disk.sizeBytes; }
  get physicalSectorBytes(): number { return this.disk.physicalSectorBytes; }
  get isReadonly(): boolean { return this.disk.isReadonly; }
  get onResize(): (() => void) | null { return this.disk.onResize; }
  set onResize(told: (() => void) | null) { this.disk.onResize = told; }
  async #do(kind: keyof Meddled["nr"], act: () => Promise<void>): Promise<void> {
    const fault = this.fault(kind);
    if (fault) throw fault;
    this.nr[kind]++;
    await act();
  }
  read(offset: number, into: Uint8Array): Promise<void> { return this.#do("read", () => this.disk.read(offset, into)); }
  write(offset: number, from: Uint8Array): Promise<void> { return this.#do("write", () => this.disk.write(offset, from)); }
  flush(): Promise<void> { return this.#do("flush", () => this.disk.flush()); }
  discard(offset: number, lengthBytes: number): Promise<void> { return this.#do("discard", () => this.disk.discard(offset, lengthBytes)); }
  writeZeros(offset: number, lengthBytes: number): Promise<void> { return this.disk.writeZeros(offset, lengthBytes); }
  resize(sizeBytes: number): Promise<void> { return this.disk.resize(sizeBytes); }
  close(): Promise<void> { return this.disk.close(); }
}

describe("a Debian guest's disks", { skip: imagesMissing(), timeout: 600_000 }, () => {
  let machine: Machine, guest: Talk;
  const disks: Disk[] = [], told: string[] = [], FILE_BYTES = 3 * MIB, content = randomBytes(FILE_BYTES);
  let raw: Meddled, qcow2: Meddled;
  const attach = (vdev: string, disk: Disk): void => { attachDisk(guest.domain.devices, machine.dom0, guest.domain.domid, { vdev, disk }, machine.log); };
  const detach = (vdev: string, isForced = false): Promise<void> => guest.domain.devices.remove("vbd", vdevNumber(vdev)!, isForced);
  const state = (vdev: string): number | undefined => guest.domain.devices.list("vbd").find((d) => d.devid === vdevNumber(vdev))?.state;

  before(async () => {
    mkdirSync(path("tree"));
    writeFileSync(join(path("tree"), "f"), content);
    ext4("raw", 24);
    execFileSync("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", ext4("plain", 24), path("qcow2")]);
    ext4("ro", 8, path("tree"));
    writeFileSync(path("cd"), content);
    writeFileSync(path("spare"), content);
    raw = new Meddled(await open("raw", "raw"));
    qcow2 = new Meddled(await open("qcow2", "qcow2"));
    disks.push(raw, qcow2, await open("ro", "raw", true), await open("cd", "raw", true));
    machine = await createMachine({ host: nodeHost(), memoryMiB: 192, nrDomains: 1, pcpus: 1, log: (s) => told.push(s) });
    guest = await Talk.boot(machine, {
      name: "disks", memoryMiB: 128, maxmemMiB: 176, disks: [{ vdev: "xvda", disk: raw }, { vdev: "xvdb", disk: qcow2 }, { vdev: "xvdc", disk: disks[2]! }, { vdev: "xvdd", disk: disks[3]!, isCdrom: true }],
    });
    await guest.ok("cd /tmp; mkdir a b c; echo 3 > /proc/sys/vm/drop_caches");
  });
  after(async () => {
    await machine?.destroy();
    for (const disk of disks) await disk.close();
  });

  test("a file goes from a read-only disk onto a raw and a qcow2 one, and comes back from both as it was", async () => {
    await guest.ok("mount /dev/xvda a && mount /dev/xvdb b && mount -o ro /dev/xvdc c");
    await guest.ok("cp c/f a/f && cp a/f b/f && sync && umount a && umount b && mount /dev/xvda a && mount /dev/xvdb b");
    const sums = (await guest.ok("sha1sum a/f b/f c/f")).split("\n").map(sum);
    assert.deepEqual(sums, Array.from({ length: 3 }, () => sha1(content)));
  });

  test("a sync of the guest is a flush of the disk, after the writes", async () => {
    const { flush, write } = raw.nr;
    await guest.ok("echo new > a/g; dd if=a/f of=a/h bs=64k count=4 conv=fsync");
    assert.ok(raw.nr.flush > flush && raw.nr.write > write, JSON.stringify(raw.nr));
  });

  test("a disk for reading says so and takes no write; a CD drive is one whose medium can go", async () => {
    assert.equal(await guest.ok("cat /sys/block/xvda/ro /sys/block/xvdc/ro /sys/block/xvdd/ro | tr -d '\\n'"), "011");
    assert.equal(await guest.ok("cat /sys/block/xvda/removable /sys/block/xvdc/removable /sys/block/xvdd/removable | tr -d '\\n'"), "001");
    assert.notEqual((await guest.run("echo x > c/x")).code, 0);
    assert.notEqual((await guest.run("dd if=/dev/zero of=/dev/xvdc bs=4k count=1")).code, 0);
    assert.equal(sum(await guest.ok("sha1sum /dev/xvdd")), sha1(content));
  });

  test("what is trimmed is discarded, and a qcow2 image gives its clusters back", async () => {
    const clusters = (): number => {
      const { status, stdout } = spawnSync("qemu-img", ["check", "-U", "--output=json", path("qcow2")], { encoding: "utf8" });
      assert.ok(status === 0 || status === 3, stdout);       // 3: leaks, which an image in use may have
      return (JSON.parse(stdout) as { "allocated-clusters": number })["allocated-clusters"];
    };
    await qcow2.flush();
    const full = clusters();
    await guest.ok("rm b/f; sync; fstrim b");
    assert.ok(qcow2.nr.discard > 0);
    await qcow2.flush();
    const left = clusters();
    assert.ok(left <= full - 0.5 * FILE_BYTES / 65536, `${full} clusters, then ${left}`);       // those at the ends of extents stay, and of those there may be some
    await guest.ok("cp a/f b/f");
  });

  test("an error of the disk is an error of one read in the guest, and the next one works", async () => {
    raw.fault = (kind) => (kind === "read" ? new DiskError("io", "raw: the medium has a scratch") : null);
    assert.notEqual((await guest.run("echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/xvda of=/dev/null bs=64k skip=64 count=1 iflag=direct")).code, 0);
    raw.fault = () => null;
    await guest.ok("dd if=/dev/xvda of=/dev/null bs=64k skip=64 count=1 iflag=direct");
    assert.ok(told.some((s) => s.endsWith("xvda: raw: the medium has a scratch")), told.join("\n"));
    assert.equal(state("xvda"), 4);
  });

  test("a full medium holds the guest's write, not its reads, and the write ends when there is room", async () => {
    let nrTries = 0;
    const tried = Promise.withResolvers<void>();
    raw.fault = (kind) => {
      if (kind !== "write") return null;
      if (++nrTries === 3) tried.resolve();
      return new DiskError("nospace", "raw: no room");
    };
    await guest.ok("(dd if=/dev/xvdd of=a/slow bs=256k count=4 conv=fsync 2>/dev/null; echo $? > code) & true");
    await tried.promise;
    await guest.ok("dd if=/dev/xvda of=/dev/null bs=64k skip=80 count=1 iflag=direct; test ! -e code");
    assert.equal(told.filter((s) => /raw: no room; the guest's write waits/.test(s)).length, 1);
    raw.fault = () => null;
    await guest.until("test -e code");
    assert.equal(await guest.ok("cat code"), "0");
    assert.equal(sum(await guest.ok("sha1sum a/slow")), sha1(content.subarray(0, MIB)));
  });

  test("a disk that comes while the guest runs grows under it, and goes again", async () => {
    const spare = await open("spare", "raw");
    disks.push(spare);
    attach("xvde", spare);
    await guest.until("test $(cat /sys/block/xvde/size) = 6144");
    assert.equal(sum(await guest.ok("sha1sum /dev/xvde")), sha1(content));
    await spare.resize(5 * MIB);
    await guest.until("test $(cat /sys/block/xvde/size) = 10240");
    await guest.ok(`dd if=/dev/xvdd of=/dev/xvde bs=${MIB} seek=4 count=1 conv=fsync`);
    await detach("xvde");
    await guest.until("test ! -e /sys/block/xvde");
    assert.equal(state("xvde"), undefined);
    await spare.flush();
    assert.equal(sha1(readFileSync(path("spare"))), sha1(Buffer.concat([content, new Uint8Array(MIB), content.subarray(0, MIB)])));
    attach("xvde", spare);
    await guest.until("test -b /dev/xvde && test $(cat /sys/block/xvde/size) = 10240");
  });

  test("a disk taken while the guest writes to it gives the guest errors, and nothing else suffers", async () => {
    await guest.ok("mknod e b 202 64");       // dd would make a file of the name of a disk that has gone, in the way of the next
    for (const isForced of [false, true]) {
      await guest.ok("rm -f code; (while dd if=/dev/xvdd of=e bs=64k count=40 oflag=direct 2>/dev/null; do :; done; echo $? > code) & sleep 1");
      await detach("xvde", isForced);
      await guest.until("test -e code");
      await guest.until("test ! -b /dev/xvde");
      attach("xvde", disks[4]!);
      await guest.until("test -b /dev/xvde && test $(cat /sys/block/xvde/size) = 10240");
      assert.equal(sum(await guest.ok("sha1sum a/f")), sha1(content));
    }
    // the guest's table of grants may grow meanwhile, for its other disks: two frames for each of its own
    const left = (): number => machine.hv.mm.frames.nrFree + 2 * nrGrantFrames(machine.hv.domain(guest.domain.domid)!), before = left();
    await detach("xvde");
    await guest.until("test ! -e /sys/block/xvde");
    assert.ok(left() >= before, `${left()} frames, ${before} before`);
  });

  test("a mounted disk that is taken by force gives errors until it is unmounted", async () => {
    ext4("gone", 8);
    const mounted = await open("gone", "raw");
    disks.push(mounted);
    attach("xvdf", mounted);
    await guest.until("test -b /dev/xvdf");
    await guest.ok("mkdir d; mount /dev/xvdf d && cp /etc/rc d/rc && sync");
    await detach("xvdf", true);
    await guest.until("test ! -b /dev/xvdf");
    assert.notEqual((await guest.run("dd if=/etc/rc of=d/y conv=fsync")).code, 0);
    await guest.run("umount d");
    assert.equal(sum(await guest.ok("sha1sum a/f")), sha1(content));
  });

  test("another back end goes on where the last one left the ring, under load, and the guest does not notice", async () => {
    const { domid } = guest.domain, devid = vdevNumber("xvdg")!, disk = new Meddled(disks[4]!);
    const begin = (): XenbusBack => new XenbusBack(machine.xs, domid, devid, new BlockBack({ name: "d xvdg", disk, ...dom0Ends(machine.dom0, domid), log: machine.log }), machine.log);
    machine.xs.transaction((t) => t.writeAll(deviceEntries({ domid, kind: "vbd", devid }, { "virtual-device": devid, "device-type": "disk" }, { mode: "w" })));
    let back = begin();
    await guest.until("test -b /dev/xvdg");
    await guest.ok(`rm -f code; (dd if=/dev/xvdd of=/dev/xvdg bs=4k count=${FILE_BYTES / 4096} oflag=direct 2>/dev/null; echo $? > code) & true`);
    for (let nr = 0; nr < 3; nr++) {
      const { write } = disk.nr;
      while (disk.nr.write < write + 20) await new Promise((resume) => setTimeout(resume, 5));
      await back.close();
      back = begin();
    }
    await guest.until("test -e code");
    assert.equal(await guest.ok("cat code"), "0");
    assert.equal(sum(await guest.ok(`echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/xvdg bs=64k count=${FILE_BYTES / 65536} 2>/dev/null | sha1sum`)), sha1(content));
    assert.ok(await back.detach(60_000));
    await back.close();
  });

  test("the guest gives memory to the machine and gets it back", async () => {
    const free = (): number => machine.hv.mm.frames.nrFree, total = async (): Promise<number> => Number(/MemTotal: +(\d+)/.exec(await guest.ok("cat /proc/meminfo"))![1]);
    const freeBefore = free(), totalBefore = await total();
    guest.domain.control.setMemoryTarget(96);
    await guest.until(`test $(awk '/MemTotal/ {print $2}' /proc/meminfo) -lt ${totalBefore - 30 * 1024}`);
    assert.ok(free() >= freeBefore + 30 * 256, `${freeBefore} frames were free, ${free()} are`);
    assert.ok(guest.domain.report().memoryMiB < 100);
    guest.domain.control.setMemoryTarget(128);
    await guest.until(`test $(awk '/MemTotal/ {print $2}' /proc/meminfo) -ge ${totalBefore - 1024}`);
    assert.ok(Math.abs(free() - freeBefore) < 256, `${freeBefore} frames were free, ${free()} are`);
    guest.domain.control.setMemoryTarget(176);       // more than it booted with: Linux hot-plugs a section of it
    await guest.until(`test $(awk '/MemTotal/ {print $2}' /proc/meminfo) -ge ${totalBefore + 40 * 1024}`);
    await guest.ok("mkdir m && mount -t tmpfs -o size=80m none m && dd if=/dev/zero of=m/big bs=1M count=70 && umount m");
    guest.domain.control.setMemoryTarget(128);
    await guest.until(`test $(awk '/MemTotal/ {print $2}' /proc/meminfo) -lt ${totalBefore + 8 * 1024}`);
    assert.throws(() => guest.domain.control.setMemoryTarget(177), /177 MiB are not between 1 and the domain's maximum of 176/);
  });

  test("a SysRq key is heard", async () => {
    guest.domain.control.sysrq("h");
    await guest.expect(/sysrq: HELP[^\n]*\n/);       // the kernel says it on the console whatever its log level: no command may run meanwhile
  });

  test("a guest that is asked to go writes everything back, and its images are sound", async () => {
    await guest.ok("echo last > b/last");
    assert.equal(guest.domain.control.shutdown("poweroff"), true);
    assert.equal((await guest.domain.wait()).reason, "poweroff");
    await guest.domain.destroy();
    for (const disk of disks) await disk.close();
    sound(path("raw"));
    assert.equal(spawnSync("qemu-img", ["check", path("qcow2")]).status, 0);
    execFileSync("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", path("qcow2"), path("plain")]);
    sound(path("plain"));
    const cat = (file: string): Buffer => execFileSync("/usr/sbin/debugfs", ["-R", `cat ${file}`, path("plain")], { stdio: ["ignore", "pipe", "ignore"], maxBuffer: 2 * FILE_BYTES });
    assert.equal(sha1(cat("f")), sha1(content));
    assert.equal(cat("last").toString(), "last\n");
  });
});
