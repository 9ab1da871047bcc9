import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { cpio, type CpioEntry } from "./cpio.ts";

const golden = (name: string): string => readFileSync(new URL(`golden/${name}`, import.meta.url), "utf8");
const ENTRIES: readonly CpioEntry[] = [
  { kind: "file", path: "/init", mode: 0o755, bytes: new TextEncoder().encode("#!/bin/sh\n") },
  { kind: "file", path: "usr/bin/busybox", mode: 0o4755, bytes: new Uint8Array(1001).fill(7), mtime: 86400, uid: 1, gid: 2 },
  { kind: "symlink", path: "bin", target: "usr/bin" },
  { kind: "char", path: "dev/console", major: 5, minor: 1 },
  { kind: "block", path: "dev/xvda", major: 202, minor: 0, mode: 0o660 },
  { kind: "fifo", path: "run/pipe" },
  { kind: "dir", path: "tmp", mode: 0o1777 },
  { kind: "file", path: "etc/empty", bytes: new Uint8Array(0) },
];

test("cpio lists the archive as it was meant", (t) => {
  // cpio.list was made by: TZ=UTC cpio -tvn --quiet < archive
  let list: string;
  try {
    list = execFileSync("cpio", ["-tvn", "--quiet"], { input: cpio(ENTRIES), env: { ...process.env, TZ: "UTC", LC_ALL: "C" }, encoding: "utf8" });
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "ENOENT") return t.skip("no cpio here");
    throw e;
  }
  assert.equal(list, golden("cpio.list"));
});

test("the same entries give the same bytes, in whole blocks of 512", () => {
  assert.deepEqual(cpio(ENTRIES), cpio(ENTRIES));
  assert.equal(cpio(ENTRIES).length % 512, 0);
  assert.equal(new TextDecoder().decode(cpio([])).slice(110, 120), "TRAILER!!!");
});

test("paths outside the archive, empty names and numbers that do not fit are refused", () => {
  for (const path of ["", "/", "..", "a/../b", "a\0b"]) assert.throws(() => cpio([{ kind: "dir", path }]), UserError);
  assert.throws(() => cpio([{ kind: "symlink", path: "a", target: "" }]), UserError);
  assert.throws(() => cpio([{ kind: "char", path: "a", major: -1, minor: 0 }]), UserError);
  assert.throws(() => cpio([{ kind: "dir", path: "a", mtime: 1.5 }]), UserError);
});
