import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { UserError } from "../base/errors.ts";
import { readKernel } from "./bzimage.ts";
import type { MakePlace } from "./decompress/output.ts";
import { bzImage, lz4, withSize } from "./golden/bzimage.ts";
import { makeElf } from "./golden/elf.ts";

const ELF = makeElf({ bits: 64, entry: 7, segments: [{ paddr: 0x100000, bytes: new Uint8Array(3000).fill(5) }] });
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

test("a kernel packed with LZ4 is unpacked into a place that is given, and nothing lies before or far behind it; one that is longer than it says is refused", () => {
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 65536, shared: true }), u8 = new Uint8Array(memory.buffer), at = 8192, file = bzImage(withSize(lz4(ELF), ELF.length));
  let end = 0;
  u8.fill(0xee);
  const place: MakePlace = (sizeBytes, behindBytes) => {
    assert.equal(sizeBytes, ELF.length);
    end = at + sizeBytes + behindBytes;
    return { memory, bytes: u8.subarray(at, at + sizeBytes) };
  };
  const { image, unpacked } = readKernel(file, "vmlinuz", place);
  assert.equal(unpacked, memory.buffer);
  assert.deepEqual([...u8.subarray(at, at + ELF.length)], [...ELF]);
  assert.deepEqual([...image.segments[0]!.bytes], Array(3000).fill(5));
  assert.ok(end > at + ELF.length && u8.subarray(0, at).every((x) => x === 0xee) && u8.subarray(end).every((x) => x === 0xee));
  assert.deepEqual(readKernel(file, "vmlinuz", () => null).image, readKernel(ELF, "vmlinux").image);
  assert.throws(() => readKernel(bzImage(withSize(lz4(ELF), ELF.length - 1)), "vmlinuz", (sizeBytes) => ({ memory, bytes: u8.subarray(at, at + sizeBytes) })), { name: "UserError", message: /LZ4: more than the \d+ bytes that it is said to have/ });
  // what others unpack copies within its result, which is no good in shared memory
  readKernel(bzImage(gzipSync(ELF)), "vmlinuz", () => assert.fail());
});

test("a bzImage cut off at any length is refused", () => {
  const whole = bzImage(gzipSync(ELF));
  for (let n = 0; n < whole.length - 100; n++) assert.throws(() => readKernel(whole.subarray(0, n), "vmlinuz"), UserError, `cut at ${n}`);
});
