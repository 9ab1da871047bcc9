/** The initiator against tgtd (package tgt), in the foreground on a loopback port, with a control socket of its own. */
import assert from "node:assert/strict";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { UserError } from "../../base/errors.ts";
import { DiskError } from "../disk.ts";
import { random, randomBytes, sameBytes } from "../fixture.ts";
import { Daemon, eventually, folder, freePort, run } from "../fixture.node.ts";
import { connectSocket as connect } from "../socket.node.ts";
import { discoverIscsi, type IscsiOptions, openIscsi, openIscsiUri } from "./client.ts";
import { parseIscsiUri } from "./uri.ts";

const MIB = 1 << 20, SIZE = 16 * MIB, IQN = "iqn.2026-01.org.example:disk", CHAP_IQN = "iqn.2026-01.org.example:chap", DIGEST_IQN = "iqn.2026-01.org.example:digest", initiatorName = "iqn.2026-01.org.example:host";
const dir = folder(), control = String(process.pid), file = dir.path("lun.raw"), big = dir.path("4k.raw");
let port = 0, tgtd: Daemon;
process.env.TGT_IPC_SOCKET = dir.path("control");          // else in /var/run, and left there by a tgtd that is killed
const admin = (...args: string[]) => run("tgtadm", "-C", control, "--lld", "iscsi", ...args);
async function startTgtd(): Promise<void> {
  tgtd = new Daemon("tgtd", "-f", "-C", control, "--iscsi", `portal=127.0.0.1:${port}`);
  await eventually(() => admin("--op", "show", "--mode", "system"), tgtd);
  for (const [tid, iqn] of [["1", IQN], ["2", CHAP_IQN], ["3", DIGEST_IQN]] as const) {
    await admin("--op", "new", "--mode", "target", "--tid", tid, "-T", iqn);
    await admin("--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "-b", file);
    await admin("--op", "bind", "--mode", "target", "--tid", tid, "-I", "ALL");
  }
  for (const [name, value] of [["HeaderDigest", "CRC32C"], ["DataDigest", "CRC32C"], ["InitialR2T", "No"], ["ImmediateData", "No"], ["FirstBurstLength", "16384"]] as const) {
    await admin("--op", "update", "--mode", "target", "--tid", "3", "--name", name, "--value", value);
  }
  for (const tid of ["1", "3"]) await admin("--op", "update", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "--params", "thin_provisioning=1");
  await admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "2", "-b", big, "--blocksize", "4096");
  await admin("--op", "new", "--mode", "account", "--user", "host", "--password", "hostsecret12");
  await admin("--op", "new", "--mode", "account", "--user", "target", "--password", "targetsecret");
  await admin("--op", "bind", "--mode", "account", "--tid", "2", "--user", "host");
  await admin("--op", "bind", "--mode", "account", "--tid", "2", "--user", "target", "--outgoing");
}
before(async () => {
  for (const f of [file, big]) { writeFileSync(f, ""); truncateSync(f, SIZE); }
  port = await freePort();
  await startTgtd();
});
after(async () => {
  await tgtd.stop();
  dir.cleanup();
});
const options = (o: Partial<IscsiOptions> = {}): IscsiOptions => ({ connect, portal: { host: "127.0.0.1", port }, target: IQN, lun: 1, initiatorName, ...o });
const fault = (name: string, about: RegExp) => (e: unknown): boolean => {
  assert.ok(e instanceof DiskError, String(e));
  assert.deepEqual([e.fault, about.test(e.message)], [name, true], e.message);
  return true;
};

test("iSCSI addresses are read, and what is none is refused with a sentence that keeps the password to itself", () => {
  assert.deepEqual(parseIscsiUri(`iscsi://[::1]:5/${IQN}/3`), { portal: { host: "::1", port: 5 }, target: IQN, lun: 3 });
  assert.deepEqual(parseIscsiUri(`iscsi://u%p@h/${IQN}/0`), { portal: { host: "h", port: 3260 }, target: IQN, lun: 0, user: "u", secret: "p" });
  for (const bad of [`iscsi://h/${IQN}`, `iscsi://h/disk/1`, `iscsi://h/${IQN}/16384`, `iscsi://h:0/${IQN}/1`, "iscsi://"]) assert.throws(() => parseIscsiUri(bad), UserError);
  assert.throws(() => parseIscsiUri("iscsi://u%hunter2@h/x"), (e: Error) => !e.message.includes("hunter2"));
});

test("SendTargets lists tgtd's targets with their portals", async () => {
  assert.deepEqual(await discoverIscsi(options()), [{ name: IQN, addresses: [`127.0.0.1:${port}`] }, { name: CHAP_IQN, addresses: [`127.0.0.1:${port}`] }, { name: DIGEST_IQN, addresses: [`127.0.0.1:${port}`] }]);
});

for (const digests of ["none", "require"] as const) {
  const how = digests === "none" ? "without digests, with immediate data" : "with digests, with unsolicited data that is not immediate";
  test(`what is written, zeroed and flushed is in the target's file, ${how}`, async () => {
    const disk = await openIscsi(options({ digests, target: digests === "none" ? IQN : DIGEST_IQN })), next = random(digests.length), image = new Uint8Array(readFileSync(file));
    assert.deepEqual([disk.sizeBytes, disk.isReadonly, disk.shape.canFlush, disk.shape.canTrim], [SIZE, false, true, true]);
    assert.notEqual(disk.shape.identity, "");
    const put = async (at: number, n: number): Promise<void> => {
      const bytes = randomBytes(next, n);
      image.set(bytes, at);
      await disk.write(at, bytes);
    };
    await put(0, 512);
    await put(3 * MIB, 3 * MIB + 512);                      // several commands, unsolicited data, R2Ts
    await Promise.all(Array.from({ length: 200 }, (_, i) => put(8 * MIB + i * 4096, 512 * (1 + i % 8))));
    await disk.writeZeros(3 * MIB + 512, 100_352);
    image.fill(0, 3 * MIB + 512, 3 * MIB + 512 + 100_352);
    await disk.flush();
    assert.equal(disk.unflushedBytes, 0);
    sameBytes(new Uint8Array(readFileSync(file)), image);
    const got = new Uint8Array(SIZE);
    await disk.read(0, got);
    sameBytes(got, image);
    await disk.discard(8 * MIB, MIB);
    await disk.write(8 * MIB, image.subarray(8 * MIB, 9 * MIB));
    await assert.rejects(disk.read(SIZE, new Uint8Array(512)), fault("range", /inside/));
    assert.equal(disk.nrReconnects, 0);
    await disk.close();
    sameBytes(new Uint8Array(readFileSync(file)), image);
  });
}

test("a unit with blocks of 4096 bytes takes requests of 512: neighbours in one block, written together, all arrive", async () => {
  const disk = await openIscsi(options({ lun: 2 })), image = new Uint8Array(SIZE);
  assert.deepEqual([disk.shape.blockBytes, disk.physicalSectorBytes, disk.sizeBytes], [4096, 4096, SIZE]);
  await Promise.all(Array.from({ length: 64 }, async (_, i) => {
    const bytes = randomBytes(random(i), 512 * (1 + i % 3));
    image.set(bytes, i * 1536);
    await disk.write(i * 1536, bytes);
  }));
  await disk.close();
  sameBytes(new Uint8Array(readFileSync(big)), image);
});

test("CHAP: the right secret opens, one-way and mutual; a wrong one on either side does not", async () => {
  const chap = { user: "host", secret: "hostsecret12" }, into = new Uint8Array(512), o = (c: IscsiOptions["chap"]) => options({ target: CHAP_IQN, ...(c ? { chap: c } : {}) });
  for (const c of [chap, { ...chap, mutualUser: "target", mutualSecret: "targetsecret" }]) {
    const disk = await openIscsi(o(c));
    await disk.read(0, into);
    await disk.close();
  }
  const byUri = await openIscsiUri(`iscsi://host%hostsecret12@127.0.0.1:${port}/${CHAP_IQN}/1`, { connect, initiatorName, digests: "prefer" });
  await byUri.close();
  await assert.rejects(openIscsi(o({ ...chap, secret: "wrong" })), fault("denied", /user or secret is wrong/));
  await assert.rejects(openIscsi(o({ ...chap, mutualSecret: "wrong" })), fault("denied", /does not know the secret/));
  await assert.rejects(openIscsi(o({ ...chap, mutualUser: "other", mutualSecret: "targetsecret" })), fault("denied", /calls itself "target" instead of "other"/));
  await assert.rejects(openIscsi(options({ digests: "require" })), fault("unsupported", /no HeaderDigest, which was required/));
  await assert.rejects(openIscsi(o(undefined)), fault("denied", /./));
  await assert.rejects(openIscsi(o({ ...chap, mutualSecret: chap.secret })), UserError);
});

test("targets and units that are not there are missing by name; the controller is no disk", async () => {
  await assert.rejects(openIscsi(options({ target: "iqn.2026-01.org.example:none" })), fault("missing", /no such target/));
  await assert.rejects(openIscsi(options({ lun: 7 })), fault("missing", /no unit 7; it has 0, 1, 2/));
  await assert.rejects(openIscsi(options({ lun: 0 })), fault("unsupported", /device of type 12, not a disk/));
  await assert.rejects(openIscsi(options({ portal: { host: "127.0.0.1", port: 1 } })), fault("gone", /Cannot connect/));
  await assert.rejects(openIscsi(options({ initiatorName: "me" })), UserError);
});

test("a target that was killed under load and comes back finds every write made, in a session in the old one's place", async () => {
  const disk = await openIscsi(options({ retryMs: 20, retryMaxMs: 100, keepaliveMs: 200 })), image = new Uint8Array(readFileSync(file)), next = random(5), writes: Promise<void>[] = [];
  let again: Promise<void> | undefined;
  for (let i = 0; i < 300; i++) {
    const at = (i * 37 % 8192) * 512, bytes = randomBytes(next, 512);
    image.set(bytes, at);
    writes.push(disk.write(at, bytes));
    if (i % 20 === 0) await writes[i];
    if (i === 150) {
      await tgtd.stop();
      again = startTgtd();
    }
  }
  await Promise.all([...writes, again]);
  await disk.flush();
  assert.ok(disk.nrReconnects >= 1);
  await disk.close();
  sameBytes(new Uint8Array(readFileSync(file)), image);
});
