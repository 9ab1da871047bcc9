import assert from "node:assert/strict";
import { test } from "node:test";
import { tinyKernel } from "../../test/tiny-kernel.ts";
import { DOMID } from "../abi/xen.ts";
import type { GfnRange } from "../builder/load.ts";
import { bzImage, lz4, withSize } from "../builder/golden/bzimage.ts";
import { Domain } from "../hypervisor/domain.ts";
import { Hypervisor } from "../hypervisor/hypervisor.ts";
import { MachineMemoryExhausted } from "../memory/frames.ts";
import { MachineMemory } from "../memory/machine.ts";
import { checkConfig } from "./config.ts";
import { planDomain } from "./create.ts";
import { idleHost } from "./fixture.ts";
import { KernelFrames } from "./kernel-frames.ts";
import { createMachine } from "./machine.ts";

test("whatever lies how in the machine's memory, a domain gets the bytes that a copy would give it, and all else is given back", async () => {
  const hv = new Hypervisor(MachineMemory.create({ bytes: 32 << 20, nrPcpus: 1, pcpuBytes: 1 << 20 })), { frames } = hv.mm, free = frames.nrFree;
  let x = 3, nrAdopted = 0;
  const random = (n: number): number => { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; return (x >>> 0) % n; };
  const domain = (): Domain => Domain.create(hv, { maxVcpus: 1, maxPages: 200, handle: new Uint8Array(16) });
  for (let round = 0; round < 200 && frames.nrFree > 0; round++) {
    const kernel = new KernelFrames(hv.mm), place = kernel.place(20 * 4096 - random(4096), random(9000));
    if (!place) break;        // whatever is free was used before
    assert.equal(kernel.place(4096, 0), null, "once");
    for (let i = 0; i < place.bytes.length; i++) place.bytes[i] = random(256);
    const outside = Uint8Array.from({ length: 5000 }, () => random(256)), writes: { gpa: number; bytes: Uint8Array }[] = [];
    for (let gpa = random(3) * 4096, n = 1 + random(6); n > 0; n--) {
      const at = random(place.bytes.length - 1), isAligned = random(4) !== 0, bytes = random(5) === 0 ? outside.subarray(random(100)) : place.bytes.subarray(at, at + 1 + random(Math.min(30_000, place.bytes.length - at - 1)));
      gpa += isAligned ? ((bytes.byteOffset - gpa) % 4096 + 4096) % 4096 : random(4096);
      if (gpa + bytes.length > 150 * 4096) break;
      writes.push({ gpa, bytes });
      gpa += bytes.length;
    }
    const populate: GfnRange[] = [{ gfn: 0, count: 150, use: "ram" }, { gfn: 0xfc000, count: 3, use: "acpi" }], [copied, given] = [domain(), domain()];
    const make = (d: Domain, plan: { populate: readonly GfnRange[]; writes: readonly { gpa: number; bytes: Uint8Array }[] }): void => {
      for (const { gfn, count } of plan.populate) d.populate(gfn, count);
      for (const { gpa, bytes } of plan.writes) d.memory.write(gpa, bytes);
    };
    make(copied, { populate, writes });
    make(given, kernel.give({ populate, writes }, { adopt: (gfn, mfn, count) => { nrAdopted += count; given.adopt(gfn, mfn, count); } }));
    assert.deepEqual([given.totPages, copied.totPages], [153, 153]);
    for (const { gfn, count } of populate) assert.deepEqual(given.memory.read(gfn * 4096, count * 4096), copied.memory.read(gfn * 4096, count * 4096), `round ${round}`);
    for (const [gfn, entry] of given.p2m.entries()) if (gfn < 150) assert.deepEqual([frames.owner(entry >>> 12), frames.refcount(entry >>> 12)], [given.domid, 1]);
    kernel.release();
    for (const d of [copied, given]) await d.destroy();
    assert.equal(frames.nrFree, free, `round ${round}`);
  }
  assert.ok(nrAdopted > 50, `${nrAdopted}`);
});

test("a machine that has no frame left for the domain's tables gives each frame back once", async () => {
  const hv = new Hypervisor(MachineMemory.create({ bytes: 16 << 20, nrPcpus: 1, pcpuBytes: 1 << 20 })), { frames } = hv.mm, free = frames.nrFree;
  const kernel = new KernelFrames(hv.mm), { bytes } = kernel.place(8 * 4096, 0)!, d = Domain.create(hv, { maxVcpus: 1, maxPages: 100, handle: new Uint8Array(16) }), others: number[] = [];
  frames.allocEach(frames.nrFree - 2, DOMID.XEN, (mfn) => { others.push(mfn); });
  // one table of entries can be had, and the table of tables
  assert.throws(() => kernel.give({ populate: [], writes: [{ gpa: 1020 * 4096, bytes }] }, d), MachineMemoryExhausted);
  assert.equal(d.totPages, 4);
  kernel.release();
  await d.destroy();
  for (const mfn of others) frames.put(mfn);
  assert.equal(frames.nrFree, free);
});

test("a kernel that is unpacked into the machine becomes the domain's; of two at once both have it, and everything is given back, also where nothing can be made of it", async () => {
  await using machine = await createMachine({ host: idleHost, memoryMiB: 128, nrDomains: 4 });
  const { frames } = machine.hv.mm, free = frames.nrFree, packed = bzImage(withSize(lz4(tinyKernel()), tinyKernel().length)), config = (name: string) => checkConfig({ name, kernel: packed, memoryMiB: 16 });
  const alone = config("alone"), { kernel } = await planDomain(alone, machine), at = kernel.image.segments[0]!.bytes.byteOffset;
  assert.equal(kernel.unpacked, machine.hv.mm.memory.buffer);
  for (const note of kernel.image.notes.values()) assert.ok(note.buffer instanceof ArrayBuffer, "browsers decode no text in shared memory");
  assert.ok(frames.nrFree < free);
  const first = await machine.createDomain(alone), memory = machine.hv.domain(first.domid)!.memory;
  assert.equal(memory.machineAddress(0x100000), at, "as it lies there");
  assert.equal(memory.read(0x100000, 1)[0], 0xf4);
  await first.destroy();
  assert.equal(frames.nrFree, free);

  const both = await Promise.all(["one", "two"].map((name) => machine.createDomain(config(name))));
  for (const d of both) assert.equal(machine.hv.domain(d.domid)!.memory.read(0x100000, 1)[0], 0xf4);
  assert.equal(new Set(both.map((d) => machine.hv.domain(d.domid)!.memory.machineAddress(0x100000))).size, 2);
  for (const d of both) await d.destroy();
  assert.equal(frames.nrFree, free);

  const broken = packed.slice();
  broken[3 * 512 + 64 + 12]! ^= 0xff;
  await assert.rejects(planDomain(checkConfig({ name: "broken", kernel: broken, memoryMiB: 16 }), machine), /damaged/);
  await assert.rejects(machine.createDomain({ name: "large", kernel: packed, memoryMiB: 512 }), /has no 512 MiB left/);
  assert.equal(frames.nrFree, free);
});
