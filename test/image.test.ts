/**
 * A Debian image made by the command, looked into by e2fsprogs. The first run fetches and installs the base system, which takes a minute or two; it is kept in
 * var/images/.bases, and later runs take seconds.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { decompress } from "../src/builder/decompress/decompress.ts";
import { domus } from "./guest.ts";

const folder = mkdtempSync(join(tmpdir(), "domus-image-")), place = join(folder, "first"), key = join(folder, "key.pub");
after(() => rmSync(folder, { recursive: true, force: true }));
const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDbW2nEYL1pC5sQZ0mC0pFkBTGHv4Wn1uFv0oYh5m0Wv test\n";
writeFileSync(key, KEY);
const OPTIONS = ["image", "build", "debian", "--output", place, "--size", "1G", "--hostname", "probe", "--user", "alice", "--key", key, "--autologin", "--json"];
type Report = { disk: string; kernel: string; ramdisk: string; config: string; usedBytes: number; sizeBytes: number; nrPackages: number; wasThere: boolean; password?: string };
const build = (...more: string[]): Report => JSON.parse(execFileSync(process.execPath, [domus, ...OPTIONS, ...more], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })) as Report;
/** What debugfs(8) says to each command. */
const debugfs = (disk: string, command: string): string => execFileSync("/usr/sbin/debugfs", ["-R", command, disk], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
const fsck = (disk: string): void => { const ran = spawnSync("/usr/sbin/e2fsck", ["-fn", disk], { encoding: "utf8" }); assert.equal(ran.status, 0, ran.stdout); };

const report = build();

test("the disk is a sparse, sound ext4 that leaves room", () => {
  fsck(report.disk);
  assert.equal(statSync(report.disk).size, 2 ** 30);
  assert.equal(report.wasThere, false);
  assert.ok(report.usedBytes < 600 * 2 ** 20, `${report.usedBytes} bytes used`);
  assert.match(debugfs(report.disk, "stats -h"), /Filesystem volume name: +domus$/m);
});

test("owners, modes and capabilities are what they are in Debian, whoever made the image", () => {
  const owner = (path: string): string => {
    const text = debugfs(report.disk, `stat ${path}`), field = (name: string) => new RegExp(`${name}: +(\\S+)`).exec(text)?.[1];
    return `${field("Type")} ${field("Mode")} ${field("User")}:${field("Group")}`;
  };
  const shadow = /^shadow:x:(\d+):/m.exec(debugfs(report.disk, "cat /etc/group"))![1];
  assert.deepEqual(["/etc/shadow", "/usr/bin/sudo", "/root", "/tmp", "/home/alice/.ssh", "/home/alice/.ssh/authorized_keys", "/home/alice/.profile", "/etc/sudoers.d/alice"].map(owner),
    [`regular 0640 0:${shadow}`, "regular 04755 0:0", "directory 0700 0:0", "directory 01777 0:0", "directory 0700 1000:1000", "regular 0600 1000:1000", "regular 0644 1000:1000", "regular 0440 0:0"]);
  assert.equal(debugfs(report.disk, "cat /home/alice/.ssh/authorized_keys"), KEY);
  if (process.getuid!() === 0) assert.match(debugfs(report.disk, "ea_list /usr/bin/ping"), /security\.capability/);
});

test("it is somebody's own: name, host keys, no machine-id and no passwords where a key was given", () => {
  const cat = (path: string): string => debugfs(report.disk, `cat ${path}`);
  assert.equal(cat("/etc/hostname"), "probe\n");
  assert.match(cat("/etc/passwd"), /^alice:x:1000:1000::\/home\/alice:\/bin\/bash$/m);
  assert.match(cat("/etc/shadow"), /^root:\*:\d+:.*^alice:\*:\d+:/ms);
  assert.equal(cat("/etc/machine-id"), "");
  assert.match(cat("/etc/ssh/ssh_host_ed25519_key.pub"), /^ssh-ed25519 \S+ root@probe$/m);
  assert.match(cat("/etc/fstab"), /^LABEL=domus \/ ext4 /);
  assert.match(cat("/etc/systemd/system/serial-getty@.service.d/autologin.conf"), /--autologin root/);
  assert.match(debugfs(report.disk, "stat /etc/systemd/system/apt-daily.timer"), /Fast link dest: "\/dev\/null"/);
  assert.equal(report.password, undefined);
});

test("kernel and initrd lie beside it; the initrd has the front ends of disk and network and is quick to unpack", () => {
  const packed = readFileSync(report.ramdisk), initrd = Buffer.from(decompress("LZ4", packed));
  for (const name of ["xen-blkfront.ko", "xen-netfront.ko", "virtio_blk.ko"]) assert.ok(initrd.includes(`kernel/drivers/${/net/.test(name) ? "net" : "block"}/${name}`), name);
  assert.ok(readFileSync(report.kernel).subarray(0x202, 0x206).equals(Buffer.from("HdrS")), "a bzImage");
  assert.match(readFileSync(report.config, "utf8"), new RegExp(`target=${report.disk}`));
});

test("asked again, it does nothing; asked for something else, it does not take away what may have been used", () => {
  const before = statSync(report.disk).mtimeMs;
  assert.equal(build().wasThere, true);
  assert.equal(statSync(report.disk).mtimeMs, before);
  const other = spawnSync(process.execPath, [domus, ...OPTIONS, "--hostname", "other"], { encoding: "utf8" });
  assert.equal(other.status, 2);
  assert.match(other.stderr, /has an image with other options; --force replaces it/);
});

test("a partition begins at 1 MiB and has the same file system", () => {
  const { disk, config } = build("--force", "--partition", "--password", "secret"), part = `${disk}?offset=${2 ** 20}`;
  fsck(part);
  assert.match(debugfs(part, "cat /etc/shadow"), /^root:(\$6\$\S+?):.*^alice:\1:/ms);
  assert.match(readFileSync(config, "utf8"), /root +=.*xvda1 ro/);
});

test("interrupted, it leaves nothing half made", async () => {
  const child = spawn(process.execPath, [domus, ...OPTIONS, "--output", join(folder, "second")], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
    if (/Lay accounts/.test(said)) child.kill("SIGINT");
  });
  const code = await new Promise((done) => child.on("close", done));
  assert.equal(code, 130, said);
  assert.match(said, /nothing half made is left/);
  assert.deepEqual(readdirSync(folder).sort(), ["first", "key.pub"]);
  assert.ok(existsSync(report.disk), "another image is not touched");
});
