/**
 * A Debian with systemd on a disk of its own, as the README has it: built, booted to its login, reached by ssh through a forward, rebooted and switched off; its file
 * system is looked at afterwards by e2fsck.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { domus, Guest } from "./guest.ts";

const BOOT_MS = 300_000, STEP_MS = 180_000, TRANSFER_BYTES = 16 << 20;
const folder = mkdtempSync(join(tmpdir(), "domus-system-")), place = join(folder, "debian");
after(() => rmSync(folder, { recursive: true, force: true }));
const sha1 = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex");

async function freePort(): Promise<number> {
  const server = createServer();
  const port = await new Promise<number>((done) => { server.listen(0, "127.0.0.1", () => done((server.address() as AddressInfo).port)); });
  await new Promise((done) => { server.close(done); });
  return port;
}

test("a Debian boots from its own disk, is reached by ssh, keeps what it is sent, reboots, and leaves a sound file system", { timeout: 900_000 }, async () => {
  const pair = join(folder, "key");
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", pair]);
  execFileSync(process.execPath, [domus, "image", "build", "debian", "--output", place, "--size", "1G", "--hostname", "probe", "--user", "alice", "--key", `${pair}.pub`], { stdio: "pipe" });
  const port = await freePort();
  await using guest = new Guest(process.execPath, [domus, "run", join(place, "debian.cfg"), "--forward", `tcp:${port}-22`]);
  /** Run a line in the guest. @returns its output, and its exit code where it may fail */
  const ssh = (command: string, stdin?: Uint8Array): Promise<{ out: Buffer; code: number | null }> => new Promise((done, failed) => {
    const child = spawn("ssh", ["-i", pair, "-p", String(port), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=120", "alice@127.0.0.1", command], { stdio: ["pipe", "pipe", "inherit"] });
    const timer = setTimeout(() => child.kill(), STEP_MS), pieces: Buffer[] = [];
    child.on("error", failed);
    child.stdout.on("data", (bytes: Buffer) => pieces.push(bytes));
    child.stdin.on("error", () => {});
    child.stdin.end(stdin ?? new Uint8Array(0));
    child.on("close", (code) => { clearTimeout(timer); done({ out: Buffer.concat(pieces), code }); });
  });
  const ok = async (command: string, stdin?: Uint8Array): Promise<Buffer> => {
    const { out, code } = await ssh(command, stdin);
    assert.equal(code, 0, `"${command}" ended with ${code}: ${out}`);
    return out;
  };
  await guest.expect(/probe login: /, BOOT_MS);
  await ok("systemctl is-system-running --wait || systemctl --failed");
  assert.equal(String(await ok("systemctl --failed --no-legend")).trim(), "");
  assert.match(String(await ok("uname -a; hostname")), /Linux probe \S+-cloud-amd64[^]*probe\n$/);
  assert.match(String(await ok("ip -4 -o address show scope global")), /inet 10\.0\.2\.15\/24/);

  const sent = randomBytes(TRANSFER_BYTES);
  assert.equal(String(await ok("tee /tmp/sent | sha1sum", sent)).split(" ")[0], sha1(sent));
  assert.equal(sha1(await ok("cat /tmp/sent")), sha1(sent));
  await ok("cp /tmp/sent ~/kept && sync");

  const before = String(await ok("cat /proc/sys/kernel/random/boot_id"));
  await ssh("sudo systemctl reboot");
  await guest.expect(/probe login: /, BOOT_MS);
  assert.notEqual(String(await ok("cat /proc/sys/kernel/random/boot_id")), before);
  assert.equal(String(await ok("sha1sum ~/kept")).split(" ")[0], sha1(sent));
  await ssh("sudo systemctl poweroff");
  assert.deepEqual(await guest.ended(STEP_MS), { code: 0, signal: null });
  const checked = spawnSync("/usr/sbin/e2fsck", ["-fn", join(place, "disk.img")], { encoding: "utf8" });
  assert.equal(checked.status, 0, checked.stdout);
});
