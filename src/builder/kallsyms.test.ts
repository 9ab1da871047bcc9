import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { images, imagesMissing } from "../../test/guest.ts";
import { readKernel } from "./bzimage.ts";
import type { ElfImage } from "./elf.ts";
import { readKallsyms } from "./kallsyms.ts";
import { type KernelSymbol, SymbolTable } from "./symbols.ts";

const TEXT = -0x7f000000, PERCPU = 3;
const symbol = (i: number): KernelSymbol => ({ address: TEXT + i * 16, type: "TtWd"[i % 4]!, name: i === 300 ? `do_${"long_".repeat(30)}` : `${i % 2 ? "sys" : "do"}_thing_${i}` });

/** A kernel of `nr` symbols and some per-CPU ones before them, as scripts/kallsyms.c lays it out. */
function kernel(nr: number, layout: { early: boolean; absolute: boolean; seqs: boolean }): ElfImage {
  const symbols = Array.from({ length: nr }, (_, i) => symbol(i)), nrPercpu = layout.absolute ? PERCPU : 0;
  const texts = Array.from({ length: 256 }, (_, n) => (n >= 0x20 && n < 0x7f ? String.fromCharCode(n) : n === 0x80 ? "sys_" : n === 0x81 ? "_thing_" : n === 0xff ? "do_" : ""));
  const bytes: number[] = [];
  const align = () => { while (bytes.length % 8) bytes.push(0); };
  const number = (x: number, size: number) => { const n = BigInt.asUintN(64, BigInt(x)); for (let i = 0; i < size; i++) bytes.push(Number(n >> BigInt(8 * i) & 0xffn)); };
  const offsets = () => {
    align();
    for (let i = 0; i < nrPercpu; i++) number(i * 8, 4);
    for (const s of symbols) number(layout.absolute ? TEXT - 1 - s.address : s.address - TEXT, 4);
    align();
    number(TEXT, 8);
  };
  const seqs = () => {
    align();
    for (let i = 0; i < nr + nrPercpu; i++) bytes.push(i >> 16, i >> 8 & 255, i & 255);
  };
  bytes.push(...new Array(640).fill(0x11), ...[..."0123456789"].flatMap((d) => [d.charCodeAt(0), 0]), ...new Array(900).fill(0x22));     // something that looks like it at first
  if (layout.early) offsets();
  align();
  number(nr + nrPercpu, 4);
  align();
  const namesAt = bytes.length, markers: number[] = [];
  [...Array.from({ length: nrPercpu }, (_, i) => `Aper_cpu_${i}`), ...symbols.map((s) => s.type + s.name)].forEach((text, i) => {
    if (i % 256 === 0) markers.push(bytes.length - namesAt);
    const packed = text.replaceAll("sys_", "\x80").replaceAll("_thing_", "\x81").replaceAll("do_", "\xff");
    if (packed.length < 0x80) bytes.push(packed.length); else bytes.push(packed.length & 0x7f | 0x80, packed.length >> 7);
    for (const c of packed) bytes.push(c.charCodeAt(0));
  });
  align();
  for (const m of markers) number(m, 4);
  if (layout.early && layout.seqs) seqs();
  align();
  const tokensAt = bytes.length, index: number[] = [];
  for (const t of texts) { index.push(bytes.length - tokensAt); for (const c of t) bytes.push(c.charCodeAt(0)); bytes.push(0); }
  align();
  for (const i of index) number(i, 2);
  if (!layout.early) offsets();
  if (!layout.early && layout.seqs) seqs();
  align();
  bytes.push(...new Array(64).fill(0x33));
  return { bits: 64, entry: 0n, notes: new Map(), segments: [{ paddr: 0x1000000, vaddr: BigInt.asUintN(64, BigInt(TEXT)), memsz: 1 << 20, flags: 5, bytes: Uint8Array.from(bytes) }] };
}

test("symbols are found in each way that scripts/kallsyms.c has laid them out", () => {
  for (const [early, absolute, seqs] of [[true, true, false], [true, true, true], [true, false, true], [false, true, true], [false, false, true], [false, false, false]] as const) {
    for (const nr of [300, 512, 700]) {
      const image = kernel(nr, { early, absolute, seqs });
      assert.deepEqual(readKallsyms(image), Array.from({ length: nr }, (_, i) => symbol(i)), JSON.stringify({ early, absolute, seqs, nr }));
    }
  }
});

test("an image without symbols, or with damaged ones, gives null", () => {
  const [segment] = kernel(600, { early: true, absolute: true, seqs: true }).segments, { bytes } = segment!;
  const withBytes = (b: Uint8Array): ElfImage => ({ bits: 64, entry: 0n, notes: new Map(), segments: [{ ...segment!, bytes: b }] });
  assert.equal(readKallsyms(withBytes(new Uint8Array(0))), null);
  assert.equal(readKallsyms(withBytes(new Uint8Array(10000).fill(0x30))), null);
  for (let end = 0; end < bytes.length - 600; end += 97) assert.equal(readKallsyms(withBytes(bytes.subarray(0, end))), null);
  let x = 7;
  for (let i = 0; i < 500; i++) {
    const bad = Uint8Array.from(bytes);
    for (let n = 0; n < 20; n++) { x = Math.imul(x, 1103515245) + 12345 >>> 0; bad[x % bad.length] = x >>> 24; }
    readKallsyms(withBytes(bad));                    // what is found does not matter, that it ends does
  }
});

test("Debian's kernel names its functions", { skip: imagesMissing() }, () => {
  const path = images().kernel, symbols = readKallsyms(readKernel(readFileSync(path), path).image)!;
  assert.ok(symbols.length > 50_000, `${symbols.length} symbols`);
  symbols.forEach((s, i) => {
    assert.ok(i === 0 || s.address >= symbols[i - 1]!.address, `${s.name} is out of order`);
    assert.match(s.type, /^[A-Za-z]$/);
  });
  const at = (name: string): number => symbols.find((s) => s.name === name)?.address ?? assert.fail(`no ${name}`), text = at("_text"), end = at("_etext");
  assert.equal(BigInt.asUintN(64, BigInt(text)), 0xffffffff81000000n);
  assert.equal(at("startup_64"), text);
  const table = new SymbolTable(symbols);
  assert.equal(table.functionAt(text), "startup_64");
  for (const name of ["do_syscall_64", "entry_SYSCALL_64", "vsnprintf"]) {
    assert.ok(at(name) > text && at(name) < end, name);
    assert.equal(table.functionAt(at(name) + 3), name);
  }
});
