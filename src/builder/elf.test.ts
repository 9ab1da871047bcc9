import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { XEN_ELFNOTE } from "../abi/elfnote.ts";
import { UserError } from "../base/errors.ts";
import { hasFeature, noteNumber, noteText, parseElf } from "./elf.ts";
import { type ElfRecipe, makeElf, note } from "./golden/elf.ts";

const parse = (recipe: ElfRecipe) => parseElf(makeElf(recipe), "vmlinux");
const refuses = (b: Uint8Array, message: RegExp): void => assert.throws(() => parseElf(b, "vmlinux"), { name: "UserError", message });
const NOTES = [note("Xen", XEN_ELFNOTE.GUEST_OS, "linux\0"), note("GNU", XEN_ELFNOTE.PHYS32_ENTRY, Uint8Array.of(9, 9, 9, 9)), note("Xen", XEN_ELFNOTE.PHYS32_ENTRY, Uint8Array.of(0, 0, 0x10, 0))];

for (const bits of [32, 64] as const) {
  test(`ELF${bits}: segments come sorted by physical address, with their bytes`, () => {
    const code = Uint8Array.of(1, 2, 3), image = parse({ bits, entry: 0x100000, segments: [{ paddr: 0x200000, bytes: code, memsz: 0x1000, flags: 6 }, { paddr: 0x100000, vaddr: 0x400000, bytes: code, memsz: 3, flags: 5 }] });
    assert.deepEqual(image.segments.map((s) => [s.paddr, s.vaddr, s.memsz, s.flags, [...s.bytes]]), [[0x100000, 0x400000n, 3, 5, [1, 2, 3]], [0x200000, 0x200000n, 0x1000, 6, [1, 2, 3]]]);
    assert.deepEqual([image.bits, image.entry], [bits, 0x100000n]);
  });
  test(`ELF${bits}: Xen's notes are found in a segment, and in a section where there is no segment`, () => {
    for (const noteSection of [false, true]) {
      const image = parse({ bits, notes: NOTES, noteSection });
      assert.deepEqual([noteText(image, XEN_ELFNOTE.GUEST_OS), noteNumber(image, XEN_ELFNOTE.PHYS32_ENTRY), noteNumber(image, XEN_ELFNOTE.ENTRY)], ["linux", 0x100000n, undefined]);
    }
  });
  test(`ELF${bits}: cut off at any length is refused or says the same`, () => {
    const whole = makeElf({ bits, notes: NOTES, segments: [{ paddr: 0x100000, bytes: new Uint8Array(40) }] });
    for (let n = 0; n < whole.length; n++) assert.throws(() => parseElf(whole.subarray(0, n), "vmlinux"), UserError, `cut at ${n}`);
  });
}

test("a note of eight bytes gives all its bits; one with 8-byte alignment is read as such", () => {
  const image = parse({ bits: 64, notes: [note("Xen", XEN_ELFNOTE.PHYS32_ENTRY, Uint8Array.of(8, 7, 6, 5, 4, 3, 2, 1), 8), note("Xen", XEN_ELFNOTE.PAE_MODE, "yes", 8)], noteAlign: 8 });
  assert.equal(noteNumber(image, XEN_ELFNOTE.PHYS32_ENTRY), 0x0102030405060708n);
  assert.equal(noteText(image, XEN_ELFNOTE.PAE_MODE), "yes");
});

test("features are read from the bits and from the names", () => {
  const by = (...notes: Uint8Array[]): boolean => hasFeature(parse({ bits: 64, notes }), "linux_rsdp_unrestricted");
  assert.equal(by(note("Xen", XEN_ELFNOTE.SUPPORTED_FEATURES, Uint8Array.of(1, 0x88, 0, 0))), true);
  assert.equal(by(note("Xen", XEN_ELFNOTE.SUPPORTED_FEATURES, Uint8Array.of(1, 8, 0, 0))), false);
  assert.equal(by(note("Xen", XEN_ELFNOTE.FEATURES, "!writable_page_tables|linux_rsdp_unrestricted\0")), true);
  assert.equal(by(), false);
});

test("what is wrong is named, with the remedy", () => {
  refuses(new Uint8Array(100), /not an ELF file; give/);
  refuses(makeElf({ bits: 64, machine: 183 }), /for AArch64; give a kernel for x86-64/);
  refuses(makeElf({ bits: 32, machine: 62 }), /for x32/);
  refuses(makeElf({ bits: 64, type: 1 }), /relocatable object \(a kernel module\?\)/);
  refuses(makeElf({ bits: 64, segments: [{ paddr: 0x1000, bytes: new Uint8Array(8), memsz: 0x2000 }, { paddr: 0x2000, bytes: new Uint8Array(8) }] }), /physical 0x1000 and 0x2000 overlap/);
  refuses(makeElf({ bits: 64, segments: [{ paddr: 0x1000, bytes: new Uint8Array(8), memsz: 4 }] }), /more bytes in the file than in memory/);
  refuses(makeElf({ bits: 64, segments: [{ paddr: 2 ** 60, bytes: new Uint8Array(8) }] }), /which no domain has/);
  const bigEndian = makeElf({ bits: 64 });
  bigEndian[5] = 2;
  refuses(bigEndian, /big-endian/);
});

test("random corruptions give an image or a UserError, never anything else", () => {
  const whole = [32, 64].map((bits) => makeElf({ bits: bits as 32 | 64, notes: NOTES, noteSection: true, segments: [{ paddr: 0x100000, bytes: new Uint8Array(40), memsz: 100 }] }));
  const patch = fc.record({ at: fc.nat(400), value: fc.oneof(fc.nat(255), fc.constantFrom(0, 0x7f, 0x80, 0xff)) });
  fc.assert(fc.property(fc.constantFrom(...whole), fc.array(patch, { minLength: 1, maxLength: 8 }), fc.option(fc.nat(400)), (file, patches, cut) => {
    const b = file.slice(0, cut ?? file.length);
    for (const { at, value } of patches) b[at % Math.max(1, b.length)] = value;
    try {
      for (const s of parseElf(b, "vmlinux").segments) assert.ok(Number.isSafeInteger(s.paddr + s.memsz) && s.bytes.length <= s.memsz);
    } catch (e) {
      if (!(e instanceof UserError)) throw e;
    }
  }), { numRuns: 5000, seed: 1 });
});
