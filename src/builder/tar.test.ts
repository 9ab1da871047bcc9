import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { tar, type TarEntry } from "./tar.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const entries: TarEntry[] = [
  { kind: "dir", path: "home/user", mode: 0o700, uid: 1000, gid: 1000 },
  { kind: "file", path: "home/user/of-513", bytes: bytes("x".repeat(513)), mode: 0o600, uid: 1000, gid: 1000 },
  { kind: "file", path: "etc/empty", bytes: bytes("") },
  { kind: "file", path: "etc/\u00e4", bytes: bytes("one line\n"), gid: 42 },
  { kind: "symlink", path: "etc/resolv.conf", target: "../run/resolv.conf" },
];
const gnuTar = (args: string[], archive: Uint8Array): string => {
  const ran = spawnSync("tar", args, { input: archive, env: { ...process.env, LC_ALL: "C", TZ: "UTC" } });
  assert.equal(ran.status, 0, String(ran.stderr));
  assert.equal(String(ran.stderr), "");
  return String(ran.stdout);
};

test("GNU tar reads what is written, with owners, modes and times", () => {
  const listed = gnuTar(["-tvf", "-", "--numeric-owner", "--quoting-style=literal"], tar(entries, 86400)).trim().split("\n").map((l) => l.replace(/ +/g, " "));
  assert.deepEqual(listed, [
    "drwx------ 1000/1000 0 1970-01-02 00:00 home/user/", "-rw------- 1000/1000 513 1970-01-02 00:00 home/user/of-513", "-rw-r--r-- 0/0 0 1970-01-02 00:00 etc/empty",
    "-rw-r--r-- 0/42 9 1970-01-02 00:00 etc/\u00e4", "lrwxrwxrwx 0/0 0 1970-01-02 00:00 etc/resolv.conf -> ../run/resolv.conf",
  ]);
  assert.equal(gnuTar(["-xOf", "-", "home/user/of-513", "etc/\u00e4"], tar(entries, 0)), `${"x".repeat(513)}one line\n`);
});

test("an archive of nothing is an archive", () => assert.equal(gnuTar(["-tf", "-"], tar([], 0)), ""));

test("what the format cannot hold is refused by name", () => {
  const path = (p: string) => () => tar([{ kind: "dir", path: p }], 0);
  assert.throws(path("/etc"), /"\/etc" is no path for an archive/);
  assert.throws(path("a/../b"), /is no path for an archive/);
  assert.throws(path("a\0b"), /its path has a zero byte/);
  assert.throws(path("a".repeat(101)), /its path has 102 bytes; 100 is a tar archive's limit/);
  assert.throws(() => tar([{ kind: "symlink", path: "a", target: "b".repeat(101) }], 0), /its target has 101 bytes/);
  assert.throws(() => tar([{ kind: "dir", path: "a", uid: 8 ** 7 }], 0), /uid 2097152 is not in a tar archive's range/);
  assert.throws(() => tar([{ kind: "dir", path: "a" }], -1), /mtime -1/);
});
