import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { tar } from "../builder/tar.ts";
import { parseXlCfg } from "../toolstack/xlcfg.ts";
import { drawPassword, hashPassword, sizeText } from "./image-build.ts";
import { type Base, BaseProgress, baseKey, type ImageChoice, imageKey, mmdebstrapArgs } from "./image-recipe.ts";
import { addAccounts, type BaseFiles, checkHostname, checkKeys, checkUser, imageCfg, type Seeds, seedFiles } from "./image-seed.ts";
import { debianSources, parseSources, sourcesText } from "./image-sources.ts";
import { checkName, image, parseInclude, parseSize } from "./image.ts";
import { needPrograms, Programs } from "./programs.ts";

const files: BaseFiles = {
  passwd: "root:x:0:0:root:/root:/bin/bash\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n", shadow: "root:*:20000:0:99999:7:::\nsshd:!:20000::::::\n",
  group: "root:x:0:\nadm:x:4:\nsudo:x:27:other\nshadow:x:42:\nsystemd-journal:x:999:\n", gshadow: "root:*::\nadm:*::\nsudo:*::other\nshadow:*::\nsystemd-journal:!*::\n",
  skel: { ".profile": new TextEncoder().encode("umask 022\n") },
};
const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDbW2nEYL1pC5sQZ0mC0pFkBTGHv4Wn1uFv0oYh5m0Wv";
const seeds: Seeds = { hostname: "tiny", user: "alice", passwordHash: "$6$salt$hash", keys: `${KEY} a@b\n`, autologin: true, hostKeys: { ssh_host_ed25519_key: new Uint8Array(3), "ssh_host_ed25519_key.pub": new Uint8Array(2) }, today: 20700 };

test("an account is added to all four files, in the groups that the base has, and root gets the password", () => {
  assert.deepEqual(addAccounts(files, seeds), {
    passwd: `${files.passwd}alice:x:1000:1000::/home/alice:/bin/bash\n`,
    shadow: "root:$6$salt$hash:20700:0:99999:7:::\nsshd:!:20000::::::\nalice:$6$salt$hash:20700:0:99999:7:::\n",
    group: "root:x:0:\nadm:x:4:alice\nsudo:x:27:other,alice\nshadow:x:42:\nsystemd-journal:x:999:alice\nalice:x:1000:\n",
    gshadow: "root:*::\nadm:*::alice\nsudo:*::other,alice\nshadow:*::\nsystemd-journal:!*::alice\nalice:!::\n",
  });
  const keyOnly = addAccounts(files, { ...seeds, passwordHash: null });
  assert.match(keyOnly.shadow, /^root:\*:20700:.*\nalice:\*:20700:/s, "an asterisk: sshd would refuse a key where a lock stands");
});

test("root as the user is no account besides", () => {
  const accounts = addAccounts(files, { ...seeds, user: "root" });
  assert.equal(accounts.passwd, files.passwd);
  assert.equal(accounts.group, files.group);
  assert.ok(seedFiles(files, { ...seeds, user: "root" }).some((e) => e.path === "root/.ssh/authorized_keys" && e.uid === undefined));
});

test("a name or a number that the base has already is refused", () => {
  assert.throws(() => addAccounts(files, { ...seeds, user: "sshd" }), /Debian itself has an account or group named "sshd"/);
  assert.throws(() => addAccounts(files, { ...seeds, user: "adm" }), /"adm"/);
  assert.throws(() => addAccounts({ ...files, passwd: `${files.passwd}x:x:1000:7::/:/bin/sh\n` }, seeds), /number 1000 already/);
  assert.throws(() => addAccounts({ ...files, shadow: "" }, seeds), /no root/);
});

test("secrets are laid down for their owners only, and no parent's owner is changed", () => {
  const entries = new Map(seedFiles(files, seeds).map((e) => [e.path, e]));
  const owner = (path: string) => { const e = entries.get(path)!; return [e.kind, e.mode, e.uid ?? 0, e.gid ?? 0]; };
  assert.deepEqual(owner("etc/shadow"), ["file", 0o640, 0, 42]);
  assert.deepEqual(owner("etc/gshadow"), ["file", 0o640, 0, 42]);
  assert.deepEqual(owner("etc/ssh/ssh_host_ed25519_key"), ["file", 0o600, 0, 0]);
  assert.deepEqual(owner("etc/ssh/ssh_host_ed25519_key.pub"), ["file", 0o644, 0, 0]);
  assert.deepEqual(owner("home/alice"), ["dir", 0o700, 1000, 1000]);
  assert.deepEqual(owner("home/alice/.ssh"), ["dir", 0o700, 1000, 1000]);
  assert.deepEqual(owner("home/alice/.ssh/authorized_keys"), ["file", 0o600, 1000, 1000]);
  assert.deepEqual(owner("home/alice/.profile"), ["file", undefined, 1000, 1000]);
  assert.deepEqual(owner("etc/sudoers.d/alice"), ["file", 0o440, 0, 0]);
  for (const shared of ["etc", "home", "etc/ssh", "etc/systemd/system"]) assert.ok(!entries.has(shared), shared);
  assert.ok(tar(entries.values(), 0).length > 0, "a tar archive holds them");
  assert.ok(![...seedFiles(files, { ...seeds, autologin: false })].some((e) => e.path.includes("autologin")));
});

test("names, keys, sizes and packages of options are checked", () => {
  for (const bad of ["Alice", "1a", "a:b", "a\nb", "", "a".repeat(33)]) assert.throws(() => checkUser(bad), /Option "--user"/);
  for (const bad of ["a.b", "-a", "a-", "A", "a\n", ""]) assert.throws(() => checkHostname(bad), /Option "--hostname"/);
  for (const bad of ["..", ".hidden", "a/b", "", "-x"]) assert.throws(() => checkName(bad), /An image's name/);
  assert.equal(checkKeys(`# mine\n\n${KEY} a@b\nfrom="10.0.0.0/8" ${KEY}\n`, "f"), `${KEY} a@b\nfrom="10.0.0.0/8" ${KEY}\n`);
  assert.throws(() => checkKeys("-----BEGIN OPENSSH PRIVATE KEY-----\n", "f"), /f is a private key/);
  assert.throws(() => checkKeys("hello\n", "f"), /no ssh public key in the line "hello"/);
  assert.throws(() => checkKeys("", "f"), /f has no ssh public key$/);
  assert.deepEqual([parseSize("4G"), parseSize("900M"), parseSize("1GiB")], [2 ** 32, 900 * 2 ** 20, 2 ** 30]);
  for (const bad of ["4", "4T", "0G", "511M", "2000G", "-1G", "1e3M"]) assert.throws(() => parseSize(bad), /Option "--size"/);
  assert.deepEqual(parseInclude("fio,iperf3, libstdc++6"), ["fio", "iperf3", "libstdc++6"]);
  for (const bad of ["--purge", "a;b", "$(x)", "A"]) assert.throws(() => parseInclude(bad), /Option "--include"/);
  assert.deepEqual([sizeText(2 ** 32), sizeText(900 * 2 ** 20)], ["4 GiB", "900 MiB"]);
});

const DEB822 = `# the mirror
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
# a comment inside
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcd

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://mirror.example/debian
Suites: sid
Components: main
`;
const LINES = `# deb http://mirror.example/debian buster main
deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian trixie main contrib # inside
deb-src http://mirror.example/debian trixie main
deb http://other.example/packages nodistro main
deb http://other.example/repo trixie stable
deb http://other.example/flat/ ./
`;

test("apt's sources are read in both formats, and other people's archives left out (sources.list(5))", () => {
  const { suite, sources } = debianSources(parseSources(DEB822, "debian.sources"));
  assert.equal(suite, "bookworm");
  assert.deepEqual(sources, [
    { uris: ["http://mirror.example/debian"], suites: ["bookworm", "bookworm-updates"], components: ["main"], signedBy: "/usr/share/keyrings/debian-archive-keyring.gpg" },
    { uris: ["http://mirror.example/debian-security/"], suites: ["bookworm-security"], components: ["main", "contrib"], signedBy: "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd" },
  ]);
  assert.deepEqual(parseSources(sourcesText(sources), "x.sources"), sources, "what is written reads as what it was");
  assert.deepEqual(debianSources(parseSources(LINES, "sources.list")), {
    suite: "trixie", sources: [{ uris: ["http://mirror.example/debian"], suites: ["trixie"], components: ["main", "contrib"], signedBy: "/usr/share/keyrings/k.gpg" }],
  });
  assert.throws(() => debianSources(parseSources("deb http://other.example/ubuntu noble main\n", "sources.list")), /name no Debian archive.*--mirror/);
});

test("another suite takes the place of the host's in all its suites", () =>
  assert.deepEqual(debianSources(parseSources(DEB822, "debian.sources"), "trixie").sources.map((s) => s.suites), [["trixie", "trixie-updates"], ["trixie-security"]]));

test("keys name what an image is made of, whatever the order, and change with each part of it", () => {
  const base: Base = { suite: "bookworm", sources: "a", packages: ["udev", "dbus"] };
  assert.equal(baseKey(base), baseKey({ ...base, packages: ["dbus", "udev", "udev"] }));
  const bases = [base, { ...base, suite: "trixie" }, { ...base, sources: "b" }, { ...base, packages: ["udev"] }, { ...base, sourceDateEpoch: "1" }];
  assert.equal(new Set(bases.map(baseKey)).size, bases.length);
  const choice: ImageChoice = { base: "b", sizeBytes: 2 ** 32, partition: false, hostname: "h", user: "u", password: null, keys: null, autologin: false };
  const choices: ImageChoice[] = [choice, { ...choice, base: "c" }, { ...choice, sizeBytes: 2 ** 31 }, { ...choice, partition: true }, { ...choice, hostname: "i" }, { ...choice, user: "v" },
    { ...choice, password: "" }, { ...choice, keys: KEY }, { ...choice, autologin: true }];
  assert.equal(new Set(choices.map(imageKey)).size, choices.length);
  assert.ok(mmdebstrapArgs(base, "root", ["Acquire::Retries \"3\""], "s", "t").includes('--aptopt=Acquire::Retries "3"'));
});

test("the configuration is one that xl would read, whatever the paths", () => {
  const folder = '/srv/a "b" \\c', cfg = parseXlCfg(imageCfg({ name: "tiny", kernel: `${folder}/vmlinuz`, ramdisk: "/i", disk: `${folder}/disk.img`, partition: true, mac: "00:16:3e:01:02:03" }), "tiny.cfg");
  const value = (key: string): unknown => JSON.parse(JSON.stringify(cfg.get(key)?.value));
  assert.ok(JSON.stringify(value("kernel")).includes(JSON.stringify(`${folder}/vmlinuz`)));
  assert.ok(JSON.stringify(value("disk")).includes(JSON.stringify(`format=raw, vdev=xvda, access=rw, target=${folder}/disk.img`)));
  assert.ok(JSON.stringify(value("root")).includes("/dev/xvda1 ro"));
  assert.throws(() => imageCfg({ name: "t", kernel: "/a,b", ramdisk: "/i", disk: "/d", partition: false, mac: "m" }), /can have no comma/);
});

test("what apt and dpkg print becomes phases and counts", () => {
  const progress = new BaseProgress();
  const said = ["I: running apt-get update...", "Get:1 http://mirror.example/debian bookworm InRelease [151 kB]", "Get:2 http://mirror.example/debian bookworm/main amd64 udev amd64 252 [1 kB]", "Unpacking udev (252) ...",
    "Unpacking dbus (1.14) ...", "Selecting previously unselected package udev.", "Setting up udev (252) ...", "Setting up udev:amd64 (252) ..."].map((l) => progress.line(l));
  assert.deepEqual(said, ["asking the archive", null, "fetching", "unpacking", "unpacking, 2 packages", null, "setting up", "setting up, 2 packages"]);
  assert.equal(progress.nrPackages, 1);
});

test("programs: a hash that openssl takes for its own, a missing one named with its package, an end in the middle", async () => {
  const controller = new AbortController(), programs = new Programs(controller.signal);
  const hash = await hashPassword(programs, "p\u00e4ss word"), salt = hash.split("$")[2]!;
  assert.equal(String(spawnSync("openssl", ["passwd", "-6", "-salt", salt, "p\u00e4ss word"]).stdout).trim(), hash);
  assert.match(drawPassword(), /^[a-km-np-z2-9]{16}$/);
  assert.throws(() => needPrograms({ sh: "dash", "no-such-program": "such-package" }), /^UserError: no-such-program is not installed here; on Debian: apt-get install such-package$/);
  await assert.rejects(programs.must("Trying", "sh", ["-c", "echo fine >&2; echo 'E: it is raining' >&2; exit 3"]), /^UserError: Trying failed: E: it is raining$/);
  const lines: string[] = [];
  const slept = programs.run("sh", ["-c", "echo begun >&2; sleep 600 & wait"], { line: (l) => { lines.push(l); controller.abort(new Error("enough")); } });
  await assert.rejects(slept, /enough/);
  assert.deepEqual(lines, ["begun"]);
  await assert.rejects(programs.run("true", []), /enough/);
});

test("the command says what is wrong before it begins", async () => {
  const folder = mkdtempSync(join(tmpdir(), "domus-image-"));
  try {
    writeFileSync(join(folder, "mine"), "");
    await assert.rejects(image(["build", "ubuntu"]), /makes "debian", not "ubuntu"/);
    await assert.rejects(image(["bake"]), /verbs build, list, rm, not "bake"/);
    await assert.rejects(image(["build", "debian", "--suite", "../x"]), /Option "--suite"/);
    await assert.rejects(image(["build", "debian", "--mirror", "http://mirror.example/debian"]), /wants "--suite" too/);
    await assert.rejects(image(["build", "debian", "--key", join(folder, "none")]), /key: .*none does not exist/);
    await assert.rejects(image(["build", "debian", "--output", folder, "--name", "x", "--suite", "bookworm", "--mirror", "http://mirror.example/debian"]), /is not empty and has no image/);
    await assert.rejects(image(["rm", "../../src"]), /An image's name/);
    await assert.rejects(image(["rm", "no-such-image"]), /There is no image "no-such-image"/);
  } finally { rmSync(folder, { recursive: true }); }
});
