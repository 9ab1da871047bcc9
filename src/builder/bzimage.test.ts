import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { UserError } from "../base/errors.ts";
import { readKernel } from "./bzimage.ts";
import { makeElf } from "./golden/elf.ts";

const ELF = makeElf({ bits: 64, entry: 7, segments: [{ paddr: 0x100000, bytes: new Uint8Array(3000).fill(5) }] });
const join = (...parts: Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]));
const withSize = (packed: Uint8Array, size: number): Uint8Array => join(packed, new Uint8Array(Uint32Array.of(size).buffer));
/** A bzImage around a payload: two setup sectors, then the payload 64 bytes into the rest. */
function bzImage(payload: Uint8Array, version = 0x20f): Uint8Array {
  const b = new Uint8Array(3 * 512 + 64 + payload.length + 100), view = new DataView(b.buffer);
  view.setUint8(0x1f1, 2);
  view.setUint16(0x1fe, 0xaa55, true);
  b.set(new TextEncoder().encode("HdrS"), 0x202);
  view.setUint16(0x206, version, true);
  view.setUint16(0x20e, 0x100, true);
  b.set(new TextEncoder().encode("6.1 test\0"), 0x300);
  view.setUint32(0x248, 64, true);
  view.setUint32(0x24c, payload.length, true);
  b.set(payload, 3 * 512 + 64);
  return b;
}
const refuses = (b: Uint8Array, message: RegExp): void => assert.throws(() => readKernel(b, "vmlinuz"), { name: "UserError", message });

test("an ELF file, a compressed one and a bzImage with any payload give the same kernel", () => {
  const files: [Uint8Array, string][] = [
    [ELF, "ELF undefined"], [gzipSync(ELF), "ELF gzip"], [bzImage(ELF), "bzImage undefined"], [bzImage(gzipSync(ELF)), "bzImage gzip"],
    [bzImage(withSize(zstdCompressSync(ELF), ELF.length)), "bzImage zstd"], [gzipSync(bzImage(gzipSync(ELF))), "bzImage gzip"],
  ];
  for (const [file, kind] of files) {
    const kernel = readKernel(file, "vmlinuz");
    assert.equal(`${kernel.format} ${kernel.compression}`, kind);
    assert.equal(kernel.image.entry, 7n);
    if (kernel.format === "bzImage") assert.equal(kernel.version, "6.1 test");
  }
});

test("what is no kernel is called by its name", () => {
  refuses(new Uint8Array(0), /vmlinuz: an empty file; give a Linux bzImage/);
  refuses(new TextEncoder().encode("070701000"), /cpio archive \(an initramfs\?\)/);
  refuses(new TextEncoder().encode("#!/bin/sh"), /a script/);
  refuses(new Uint8Array(1000), /neither an ELF file nor a bzImage/);
  refuses(gzipSync(new TextEncoder().encode("070701")), /gzip data without a kernel in them \(a cpio archive/);
  refuses(bzImage(new Uint8Array(100)), /payload that begins with 00 00/);
  refuses(bzImage(ELF, 0x207), /boot protocol 2.07; PVH needs 2.08/);
  refuses(bzImage(withSize(zstdCompressSync(ELF), ELF.length + 1)), /unpacks to \d+ bytes instead of/);
});

test("a bzImage cut off at any length is refused", () => {
  const whole = bzImage(gzipSync(ELF));
  for (let n = 0; n < whole.length - 100; n++) assert.throws(() => readKernel(whole.subarray(0, n), "vmlinuz"), UserError, `cut at ${n}`);
});
