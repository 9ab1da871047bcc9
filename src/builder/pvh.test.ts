import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { XEN_ELFNOTE } from "../abi/elfnote.ts";
import { UserError } from "../base/errors.ts";
import { HvmMemmapTableEntry, HvmModlistEntry, HvmStartInfo } from "../abi/start_info.ts";
import { type ElfRecipe, makeElf, note } from "./golden/elf.ts";
import { planPvh, type PvhConfig, writePvh } from "./load.ts";

const MiB = 2 ** 20, GiB = 2 ** 30;
const phys32 = (entry: number): Uint8Array => note("Xen", XEN_ELFNOTE.PHYS32_ENTRY, Uint8Array.of(entry, entry >> 8, entry >> 16, entry >>> 24));
const RECIPE: ElfRecipe = { bits: 64, segments: [{ paddr: 0x100000, bytes: new Uint8Array(0x1800).fill(0x90), memsz: 0x3000 }], notes: [phys32(0x100010)] };
const config = (over: Partial<PvhConfig> & { recipe?: ElfRecipe } = {}): PvhConfig => ({ kernel: { name: "vmlinux", bytes: makeElf(over.recipe ?? RECIPE) }, memoryBytes: 64 * MiB, nrVcpus: 1, ...over });
const refuses = (over: Parameters<typeof config>[0], message: RegExp): void => assert.throws(() => planPvh(config(over)), { name: "UserError", message });

/** Guest memory as the plan leaves it. */
function built(c: PvhConfig) {
  const plan = planPvh(c), frames = new Map<number, Uint8Array>();
  const frame = (gfn: number): Uint8Array => {
    assert.ok(plan.populate.some((r) => gfn >= r.gfn && gfn < r.gfn + r.count), `gfn ${gfn.toString(16)} is populated`);
    let f = frames.get(gfn);
    if (f === undefined) frames.set(gfn, f = new Uint8Array(4096).fill(0xcc));
    return f;
  };
  const each = (gpa: number, size: number, act: (f: Uint8Array, at: number, i: number) => void): void => { for (let i = 0; i < size; i++) act(frame(Math.floor((gpa + i) / 4096)), (gpa + i) % 4096, i); };
  writePvh(plan, {
    write: (gpa, bytes) => each(gpa, bytes.length, (f, at, i) => { f[at] = bytes[i] as number; }),
    zero: (gpa, size) => each(gpa, size, (f, at) => { f[at] = 0; }),
  });
  const read = (gpa: number | bigint, size: number): DataView => {
    const b = new Uint8Array(size);
    each(Number(gpa), size, (f, at, i) => { b[i] = f[at] as number; });
    return new DataView(b.buffer);
  };
  const text = (gpa: number | bigint, size: number): string => new TextDecoder().decode(read(gpa, size));
  return { plan, read, text };
}

test("start info, module list, memory map and command line stand where they point to each other", () => {
  const initrd = new Uint8Array(5000).fill(0x11), extra = new Uint8Array(10).fill(0x22);
  const { plan, read, text } = built(config({ ramdisks: [{ name: "initrd", bytes: initrd }, { name: "extra", bytes: extra }], cmdline: "console=hvc0 ü", memoryBytes: 5 * GiB + 5 }));
  const info = read(plan.startInfoGpa, HvmStartInfo.sizeof), S = HvmStartInfo;
  assert.deepEqual([S.magic.get(info, 0), S.version.get(info, 0), S.flags.get(info, 0), S.nr_modules.get(info, 0), S.rsdp_paddr.get(info, 0)], [0x336ec578, 1, 0, 2, BigInt(plan.rsdpGpa)]);
  assert.equal(text(S.cmdline_paddr.get(info, 0), 16), "console=hvc0 ü\0");
  const modules = read(S.modlist_paddr.get(info, 0), 64);
  assert.deepEqual([0, 32].map((at) => [HvmModlistEntry.paddr.get(modules, at), HvmModlistEntry.size.get(modules, at)]), [[0x103000n, 5000n], [0x105000n, 10n]]);
  assert.ok(new Uint8Array(read(0x103000, 5000).buffer).every((x) => x === 0x11));
  const map = read(S.memmap_paddr.get(info, 0), S.memmap_entries.get(info, 0) * HvmMemmapTableEntry.sizeof);
  const entries = plan.e820.map((_, i) => ({ addr: Number(HvmMemmapTableEntry.addr.get(map, i * 24)), size: Number(HvmMemmapTableEntry.size.get(map, i * 24)), type: HvmMemmapTableEntry.type.get(map, i * 24) }));
  assert.deepEqual(entries, plan.e820);
});

test("RAM ends below the tables and goes on above 4 GiB, as libxl lays a PVH guest out", () => {
  const { e820, populate, nrRamPages, storeGfn, consoleGfn } = planPvh(config({ memoryBytes: 5 * GiB + 5 }));
  assert.deepEqual(e820, [{ addr: 0, size: 0xfc000000, type: 1 }, { addr: 0xfc000000, size: 4096, type: 4 }, { addr: 0xfeff8000, size: 0x8000, type: 2 }, { addr: 4 * GiB, size: GiB + 0x4000000, type: 1 }]);
  assert.deepEqual(populate.map((r) => [r.gfn, r.count]), e820.map((e) => [e.addr / 4096, e.size / 4096]));
  assert.equal(nrRamPages, 5 * GiB / 4096);
  assert.deepEqual([storeGfn, consoleGfn], [0xfeffc, 0xfefff]);
  assert.equal(planPvh(config({ memoryBytes: 64 * MiB })).e820.length, 3);
});

test("the kernel's bytes are followed by zeros, and the registers are as the boot ABI says", () => {
  const { plan, read } = built(config());
  assert.deepEqual([...new Uint8Array(read(0x1017ff, 3).buffer)], [0x90, 0, 0]);
  assert.equal(read(0x102fff, 1).getUint8(0), 0);
  const { rip, rbx, cr0, cr4, efer, eflags, cs, ds, tr } = plan.registers;
  assert.deepEqual([rip, rbx, cr0 & ~0x10n, cr4, efer, eflags], [0x100010n, BigInt(plan.startInfoGpa), 1n, 0n, 0n, 2]);
  assert.deepEqual([cs, ds.attr, tr], [{ base: 0n, limit: 0xffffffff, sel: 0, attr: 0xc9b }, 0xc93, { base: 0n, limit: 0x67, sel: 0, attr: 0x8b }]);
});

test("the ACPI tables lead to each other, their bytes add up to zero, and each vCPU has a local APIC", () => {
  // The tables were also put through iasl -d, which finds no fault in them.
  const { plan, read, text } = built(config({ nrVcpus: 128, apicIds: Array.from({ length: 128 }, (_, i) => i * 3) }));
  const sum = (gpa: number | bigint, size: number): number => new Uint8Array(read(gpa, size).buffer).reduce((s, x) => s + x & 255, 0);
  assert.deepEqual([text(plan.rsdpGpa, 8), sum(plan.rsdpGpa, 20), sum(plan.rsdpGpa, 36)], ["RSD PTR ", 0, 0]);
  const table = (gpa: bigint, signature: string): DataView => {
    const size = read(gpa + 4n, 4).getUint32(0, true);
    assert.deepEqual([text(gpa, 4), sum(gpa, size)], [signature, 0]);
    return read(gpa, size);
  };
  const xsdt = table(read(plan.rsdpGpa + 24, 8).getBigUint64(0, true), "XSDT"), fadt = table(xsdt.getBigUint64(36, true), "FACP"), madt = table(xsdt.getBigUint64(44, true), "APIC");
  const dsdt = table(fadt.getBigUint64(140, true), "DSDT");
  assert.equal(fadt.getUint32(112, true) >> 20 & 1, 1);
  assert.equal(new TextDecoder().decode(dsdt).split("ACPI0007").length - 1, 128);
  const seen: [number, number, number][] = [];
  for (let at = 44; at < madt.byteLength; at += madt.getUint8(at + 1))
    seen.push(madt.getUint8(at) === 0 ? [madt.getUint8(at + 2), madt.getUint8(at + 3), madt.getUint32(at + 4, true)] : [madt.getUint32(at + 12, true), madt.getUint32(at + 4, true), madt.getUint32(at + 8, true)]);
  assert.deepEqual(seen, Array.from({ length: 128 }, (_, i) => [i, i * 3, 1]));
});

test("an old Linux finds the RSDP below 1 MiB, a newer one behind the tables", () => {
  const guest = (...notes: Uint8Array[]): number => planPvh(config({ recipe: { ...RECIPE, notes: [phys32(0x100010), note("Xen", XEN_ELFNOTE.GUEST_OS, "linux\0"), ...notes] } })).rsdpGpa;
  assert.equal(guest(), 0xfffc0);
  assert.ok(guest(note("Xen", XEN_ELFNOTE.SUPPORTED_FEATURES, Uint8Array.of(1, 0x88, 0, 0))) > 0xfc000000);
});

test("what does not fit is refused with the remedy", () => {
  for (const [memoryBytes, message] of [[0, /0 bytes of memory.*at least 1/], [NaN, /an unknown number/], [-5, /0 bytes/], [1e9 * MiB, /at most 1024 GiB/]] as const) refuses({ memoryBytes }, message);
  for (const nrVcpus of [0, 129, 1.5, NaN]) refuses({ nrVcpus }, /1 to 128 vCPUs, not/);
  refuses({ ramdisks: [{ name: "initrd.img", bytes: new Uint8Array(64 * MiB) }] }, /initrd.img: the ramdisk of 64 MiB does not fit: 63 MiB of the domain's 64 MiB.*set memory to 130 or more/);
  refuses({ ramdisks: [{ name: "initrd.img", bytes: new Uint8Array(0) }] }, /ramdisk is empty/);
  refuses({ memoryBytes: MiB }, /kernel takes guest memory up to 2 MiB, but the domain has 1 MiB below 4 GiB; set memory to/);
  refuses({ recipe: { ...RECIPE, segments: [{ paddr: 0xfd000000, bytes: new Uint8Array(8) }], notes: [phys32(0xfd000000)] } }, /link the kernel to a lower address/);
  refuses({ cmdline: "x".repeat(5000) }, /command line has 5000 bytes; shorten it/);
  refuses({ cmdline: "a\0b" }, /zero byte/);
  refuses({ recipe: { ...RECIPE, notes: [] } }, /no Xen notes.*CONFIG_XEN_PVH/);
  refuses({ recipe: { ...RECIPE, notes: [note("Xen", XEN_ELFNOTE.ENTRY, new Uint8Array(8))] } }, /PV guest only; set type = "pv"/);
  refuses({ recipe: { ...RECIPE, notes: [note("Xen", XEN_ELFNOTE.PHYS32_ENTRY, new Uint8Array(3))] } }, /has 3 bytes instead of 4 or 8/);
  refuses({ recipe: { ...RECIPE, notes: [phys32(0x90000)] } }, /points to 0x90000, where the kernel has no code/);
  refuses({ recipe: { ...RECIPE, segments: [] } }, /no loadable segments|no code/);
});

test("a corrupt kernel is refused, or all that the plan writes lies in frames that it asks for", () => {
  const whole = makeElf({ ...RECIPE, noteSection: true });
  const patch = fc.record({ at: fc.nat(240), value: fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff)) });
  fc.assert(fc.property(fc.array(patch, { minLength: 1, maxLength: 6 }), (patches) => {
    const bytes = whole.slice();
    for (const { at, value } of patches) bytes[at] = value;
    try {
      const plan = planPvh({ ...config(), kernel: { name: "vmlinux", bytes } });
      for (const { gpa, size } of [...plan.zeros, ...plan.writes.map((w) => ({ gpa: w.gpa, size: w.bytes.length }))])
        assert.ok(plan.populate.some((r) => gpa >= r.gfn * 4096 && gpa + size <= (r.gfn + r.count) * 4096), `${size} bytes at 0x${gpa.toString(16)}`);
    } catch (e) {
      if (!(e instanceof UserError)) throw e;
    }
  }), { numRuns: 3000, seed: 2 });
});
