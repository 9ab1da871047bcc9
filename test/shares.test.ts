/** Shared folders with Debian's stock generic kernel (the cloud one has no 9p): what the guest does the host sees, and the other way round; and nothing else of the host. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { nodeFolder } from "../src/drivers/9p/folder.node.ts";
import { nodeHost } from "../src/toolstack/host.node.ts";
import { createMachine, type Machine } from "../src/toolstack/machine.ts";
import { receiveDomain, sendDomain } from "../src/toolstack/migrate.ts";
import { saveDomain, type SaveReport } from "../src/toolstack/save.ts";
import { imagesMissing } from "./guest.ts";
import { Talk } from "./talk.ts";

const sha1 = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex"), sum = (out: string): string => out.split(" ")[0]!;
const MOUNT = "mount -t 9p -o trans=xen,version=9p2000.L";

describe("shared folders", { skip: imagesMissing(), timeout: 900_000 }, () => {
  const folder = fs.mkdtempSync(join(tmpdir(), "domus-shares-")), src = join(folder, "src"), data = join(folder, "data"), content = randomBytes(3 << 20);
  const path = (name: string): string => join(src, name);
  const shares = [{ tag: "src", source: { path: src, open: () => nodeFolder(src).open() } }, { tag: "data", source: { path: data, open: () => nodeFolder(data).open() }, isReadonly: true }];
  /** descriptors of this process in the folder */
  const nrOpen = (): number => fs.readdirSync("/proc/self/fd").filter((fd) => { try { return fs.readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder); } catch { return false; } }).length;
  const nrOpenAtLast = async (): Promise<number> => {
    for (let i = 0; i < 100 && nrOpen() > 0; i++) await new Promise((done) => { setTimeout(done, 10); });
    return nrOpen();
  };
  const saved = ({ domain }: Talk): Promise<SaveReport> => saveDomain(domain, new WritableStream(), { configJson: "{}", leaveRunning: true });
  let machine: Machine, guest: Talk;
  before(async () => {
    for (const f of [src, data]) fs.mkdirSync(f);
    fs.writeFileSync(join(folder, "secret"), "secret");
    fs.writeFileSync(path("big"), content);
    fs.writeFileSync(join(data, "only"), "read");
    machine = await createMachine({ host: nodeHost(), memoryMiB: 256, pcpus: 1 });
    guest = await Talk.boot(machine, { name: "sharer", memoryMiB: 192, shares }, "generic");
    await guest.ok(`mkdir -p /src /data && ${MOUNT},msize=524288 src /src && ${MOUNT} data /data`);
  });
  after(async () => {
    await machine?.destroy();
    fs.rmSync(folder, { recursive: true, force: true });
  });

  test("a large file is read and written as it is", async () => {
    assert.equal(sum(await guest.ok("sha1sum /src/big")), sha1(content));
    await guest.ok("dd if=/src/big of=/src/copy bs=100k && cp /src/big /src/copy2");
    for (const name of ["copy", "copy2"]) assert.equal(sha1(fs.readFileSync(path(name))), sha1(content));
    assert.equal(sum(await guest.ok("dd if=/src/big bs=4321 2>/dev/null | sha1sum")), sha1(content));
  });

  test("what one end does the other sees", async () => {
    await guest.ok("echo from the guest > /src/note && mkdir -p /src/a/b && mv /src/note /src/a/b/ && ln -s b/note /src/a/link && chmod 640 /src/a/b/note && ln /src/a/b/note /src/a/hard");
    assert.equal(fs.readFileSync(path("a/b/note"), "utf8"), "from the guest\n");
    assert.deepEqual([fs.readlinkSync(path("a/link")), fs.statSync(path("a/b/note")).mode & 0o7777, fs.statSync(path("a/hard")).nlink], ["b/note", 0o640, 2]);
    fs.writeFileSync(path("a/b/note"), "from the host\n");
    fs.writeFileSync(path("a/new"), "new\n");
    assert.equal(await guest.ok("cat /src/a/link /src/a/new"), "from the host\nnew");
    fs.rmSync(path("a/new"));
    assert.notEqual((await guest.run("cat /src/a/new")).code, 0);
    await guest.ok("touch -d '2001-02-03 04:05:06' /src/a/hard && truncate -s 5 /src/a/hard");
    assert.equal(fs.readFileSync(path("a/b/note"), "utf8"), "from ");
    await guest.ok("echo more >> /src/a/hard; rm /src/a/link; rm -r /src/a/b");
    assert.deepEqual(fs.readdirSync(path("a")), ["hard"]);
    assert.equal(fs.readFileSync(path("a/hard"), "utf8"), "from more\n");
  });

  test("a big folder is listed whole and removed", async () => {
    fs.mkdirSync(path("many"));
    for (let i = 0; i < 300; i++) fs.writeFileSync(path(`many/file-with-a-name-${i}`), "");
    assert.equal(await guest.ok("ls /src/many | wc -l"), "300");
    assert.equal(await guest.ok("ls -a /src/many | sort -u | wc -l"), "302");
    await guest.ok("rm -r /src/many");
    assert.equal(fs.existsSync(path("many")), false);
  });

  test("a tree of the guest's is packed, unpacked and compared", async () => {
    await guest.ok("cd / && tar cf /src/t.tar bin/busybox etc lib && mkdir /src/t && tar xf /src/t.tar -C /src/t && cd /src/t && find . -type f | sort | xargs sha1sum > /tmp/there && cd / && (cd /src/t && find . -type f | sort) | xargs sha1sum > /tmp/here && cmp /tmp/here /tmp/there");
    await guest.ok("cp -a /src/t /src/u && rm -r /src/t /src/u");
  });

  test("a share that is only read is not written to", async () => {
    assert.equal(await guest.ok("cat /data/only"), "read");
    for (const command of ["echo x > /data/new", "echo x > /data/only", "rm /data/only", "mkdir /data/d", "touch /data/only", "chmod 600 /data/only", "mv /data/only /data/x"]) assert.match((await guest.run(command)).out, /Read-only file system/, command);
    assert.deepEqual(fs.readdirSync(data), ["only"]);
  });

  test("the guest's links to what is outside lead into the guest", async () => {
    await guest.ok(`ln -s ${join(folder, "secret")} /src/out && ln -s ../secret /src/up`);
    for (const name of ["out", "up"]) assert.notEqual((await guest.run(`cat /src/${name}`)).code, 0);
    fs.symlinkSync(join(folder, "secret"), path("hostlink"));
    assert.notEqual((await guest.run("cat /src/hostlink")).code, 0);
    assert.equal(await guest.ok("cd /src/..; ls -d /src"), "/src");
    assert.equal(fs.readFileSync(join(folder, "secret"), "utf8"), "secret");
  });

  test("space, and many files at once", async () => {
    assert.match(await guest.ok("df /src | tail -n 1"), /\d+ +\d+ +\d+ +\d+% +\/src/);
    await guest.ok("for i in 1 2 3 4 5 6 7 8; do (for j in 1 2 3 4 5 6 7 8 9 10; do echo $i.$j > /src/p$i.$j; cat /src/p$i.$j > /tmp/p$i.$j; done) & done; wait; cat /tmp/p* | sort > /tmp/all; cat /src/p* | sort | cmp - /tmp/all && test $(sort -u /tmp/all | wc -l) = 80 && rm /src/p*");
  });

  test("a guest that has it mounted is neither saved nor moved, and goes on; one that has not, is", async () => {
    const save = (): Promise<SaveReport> => saved(guest);
    await assert.rejects(save(), new RegExp(`sharer cannot be saved or moved: the shared folder "src" \\(${src}\\) is mounted in it; unmount that in the guest first`));
    assert.equal(sum(await guest.ok("sha1sum /src/big")), sha1(content));
    await guest.ok("umount /src && umount /data");
    assert.equal((await save()).isAsItIs, true);        // its driver is connected, and Linux's is not again after a suspend
    await guest.ok(`${MOUNT} src /src`);
    assert.equal(sum(await guest.ok("sha1sum /src/big")), sha1(content));
  });

  test("a guest that has its driver connected and nothing mounted moves as it is, and mounts it at the other end", async () => {
    await using other = await createMachine({ host: nodeHost(), memoryMiB: 256, pcpus: 1 });
    const there = new TransformStream<Uint8Array, Uint8Array>(), back = new TransformStream<Uint8Array, Uint8Array>();
    await guest.ok("umount /src");
    const gone = sendDomain(guest.domain, { readable: back.readable, writable: there.writable }, { configJson: "{}", live: true });
    const arrived = await receiveDomain(other, { readable: there.readable, writable: back.writable }, { open: async () => ({ name: "sharer", memoryMiB: 192, kernel: new Uint8Array(0), shares }) });
    await gone;
    const moved = new Talk(arrived, guest);
    await moved.ok(`${MOUNT} src /src && echo moved > /src/moved`);
    assert.equal(sum(await moved.ok("sha1sum /src/big")), sha1(content));
    assert.equal(fs.readFileSync(path("moved"), "utf8"), "moved\n");
    await moved.ok("umount /src; for n in 0 1; do echo 9pfs-$n > /sys/bus/xen/drivers/9pfs/unbind; done");
    assert.equal((await saved(moved)).isAsItIs, false);
    await moved.domain.destroy();
    assert.equal(await nrOpenAtLast(), 0);
  });

  test("another life, ended with the folder mounted and a file open, gives everything back", async () => {
    guest = await Talk.boot(machine, { name: "sharer", memoryMiB: 192, shares }, "generic");
    await guest.ok(`mkdir /src && ${MOUNT} src /src && exec 5</src/big`);
    assert.ok(nrOpen() > 1);
    await guest.domain.destroy();
    assert.equal(await nrOpenAtLast(), 0);
  });
});
