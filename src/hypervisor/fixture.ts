/** A machine without an engine, for tests: hypercalls are made by hand, the guest's linear addresses are its physical ones. */
import { MachineMemory } from "../memory/machine.ts";
import { CPU } from "../x86/state.ts";
import type { Engine } from "../x86/engine.ts";
import { pvhContext } from "./context.ts";
import { Dom0 } from "./dom0.ts";
import { Domain } from "./domain.ts";
import { hypercall } from "./hypercalls.ts";
import { Hypervisor } from "./hypervisor.ts";
import { PvhPlatform } from "./platform-pvh.ts";

/** A domain of two vCPUs with vCPU 0 on pCPU 0, and domain 0. */
export class Fixture {
  readonly hv: Hypervisor;
  readonly dom0: Dom0;
  readonly d: Domain;
  readonly platform: PvhPlatform;
  flushes = 0;

  constructor({ maxVcpus = 2, nrPages = 64, nrPcpus = 2, maxPages = 128 } = {}) {
    this.hv = new Hypervisor(MachineMemory.create({ bytes: 16 << 20, nrPcpus, pcpuBytes: 1 << 20 }));
    this.dom0 = new Dom0(this.hv);
    this.d = Domain.create(this.hv, { maxVcpus, maxPages, handle: Uint8Array.from({ length: 16 }, (_, i) => i) });
    this.d.populate(0, nrPages);
    this.d.vcpu(0)!.setContext(pvhContext(0, 0));
    this.platform = new PvhPlatform(this.hv, 0);
    this.platform.guest = {
      readLinear: (at: bigint, bytes: Uint8Array) => this.d.memory.tryRead(Number(at), bytes) === bytes.length,
      writeLinear: (at: bigint, bytes: Uint8Array) => this.d.memory.tryWrite(Number(at), bytes) === bytes.length,
      flushTlb: () => { this.flushes++; },
    } as unknown as Engine;
    this.run(0);
  }
  /** Have vCPU `id` on the pCPU. */
  run(id: number): void {
    const v = this.d.vcpu(id)!;
    this.hv.views.u8.copyWithin(this.platform.cpu, v.context, v.context + CPU.sizeof);
    this.platform.load(v);
  }
  get exit(): number { return this.hv.get(CPU.exit, this.platform.cpu); }
  /** Make hypercall `nr`; bigints and numbers are arguments as they are, a Uint8Array or DataView goes to `at` first. */
  call(nr: number, ...args: (number | bigint)[]): number {
    this.hv.set(CPU.exit, this.platform.cpu, 0);
    return hypercall(this.platform, nr, { n: (i) => Number(BigInt.asUintN(32, BigInt(args[i] ?? 0))), p: (i) => BigInt.asUintN(64, BigInt(args[i] ?? 0)) });
  }
  /** Place a struct in guest memory: `fill` sets its fields. @returns its address */
  put(sizeof: number, fill: (dv: DataView) => void = () => {}, at = 0x1000): number {
    const dv = new DataView(new ArrayBuffer(sizeof));
    fill(dv);
    this.d.memory.write(at, new Uint8Array(dv.buffer));
    return at;
  }
  at(gpa: number, sizeBytes: number): DataView { return new DataView(this.d.memory.read(gpa, sizeBytes).buffer); }
  done(): void { this.dom0.close(); }
}
