/** For stress.test.ts: a pCPU whose "engine" makes random hypercalls, with linear addresses that are physical ones. */
import { parentPort, workerData } from "node:worker_threads";
import { MachineMemory } from "../memory/machine.ts";
import { GuestMemory } from "../memory/guest_memory.ts";
import type { Engine } from "../x86/engine.ts";
import { CPU, CR0, EFLAGS, EXIT, gprAt, MODE } from "../x86/state.ts";
import { DOMID, HYPERVISOR, SharedInfo, VcpuInfo } from "../abi/xen.ts";
import { EVTCHNOP } from "../abi/event_channel.ts";
import { XENMAPSPACE, XENMEM, XenAddToPhysmap, XenMemoryReservation } from "../abi/memory.ts";
import { SCHEDOP } from "../abi/sched.ts";
import { VCPUOP } from "../abi/vcpu.ts";
import { Pcpu } from "./pcpu.ts";
import type { PvhPlatform } from "./platform-pvh.ts";

const { memory, index, seed } = workerData as { memory: WebAssembly.Memory; index: number; seed: number };
let x = seed;
const random = (n: number): number => { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; return (x >>> 0) % n; };

class RandomEngine {
  readonly #platform: PvhPlatform;
  readonly #at: number;
  constructor(at: number, platform: PvhPlatform) { this.#at = at; this.#platform = platform; }
  get #memory(): GuestMemory { return this.#platform.d.memory; }
  warmUp(): boolean { return false; }
  contextChanged(): void {}
  flushTlb(): void {}
  readLinear(at: bigint, bytes: Uint8Array): boolean { return this.#memory.tryRead(Number(at), bytes) === bytes.length; }
  writeLinear(at: bigint, bytes: Uint8Array): boolean { return this.#memory.tryWrite(Number(at), bytes) === bytes.length; }
  #call(nr: number, op: number, a = 0, b = 0): number {
    const { dv } = this.#platform.hv.views;
    for (const [reg, value] of [[0, nr], [7, op], [6, a], [2, b]] as const) dv.setBigUint64(this.#at + gprAt(reg), BigInt(value), true);
    CPU.mode.set(dv, this.#at, MODE.code64);
    CPU.cr0.set(dv, this.#at, BigInt(CR0.PE));
    this.#platform.hypercall();
    return Number(BigInt.asIntN(64, dv.getBigUint64(this.#at, true)));
  }
  /** The upcall: flag, selector, ports, in this order. */
  #takeEvents(): void {
    const p = this.#platform, { u8, i32 } = p.hv.views, info = p.v.vcpuInfo;
    Atomics.store(u8, info, 0);
    Atomics.exchange(i32, (info + VcpuInfo.evtchn_pending_sel.at) >>> 2, 0);
    Atomics.exchange(i32, (p.d.sharedInfo + SharedInfo.evtchn_pending.at) >>> 2, 0);
  }
  run(): number {
    const { dv } = this.#platform.hv.views, p = this.#platform, slot = 0x1000 + p.v.id * 0x100;
    CPU.exit.set(dv, this.#at, 0);
    CPU.eflags.set(dv, this.#at, EFLAGS.IF | EFLAGS.fixed);
    for (let i = 0; i < 50; i++) {
      const vector = p.pendingVector();
      if (vector >= 0) { p.acknowledge(vector); this.#takeEvents(); }
      if (CPU.budget.get(dv, this.#at) < 0) CPU.budget.set(dv, this.#at, 0);
      const args = new DataView(new ArrayBuffer(32));
      switch (random(9)) {
        case 0: case 1: {
          args.setBigUint64(0, BigInt(slot + 0x80), true);
          args.setBigUint64(8, 1n, true);
          XenMemoryReservation.domid.set(args, 0, DOMID.SELF);
          this.#memory.write(slot, new Uint8Array(args.buffer));
          this.#memory.write(slot + 0x80, new Uint8Array(BigUint64Array.of(BigInt(100 + random(40))).buffer));
          this.#call(HYPERVISOR.memory_op, random(2) ? XENMEM.populate_physmap : XENMEM.decrease_reservation, slot);
          break;
        }
        case 2: {
          args.setUint32(0, 1 + random(12), true);
          this.#memory.write(slot, new Uint8Array(args.buffer));
          this.#call(HYPERVISOR.event_channel_op, random(12) ? EVTCHNOP.send : EVTCHNOP.unmask, slot);
          break;
        }
        case 3: {
          args.setBigUint64(0, BigInt(p.hv.clock.now() + random(400_000)), true);
          this.#memory.write(slot, new Uint8Array(args.buffer));
          this.#call(HYPERVISOR.vcpu_op, VCPUOP.set_singleshot_timer, p.v.id, slot);
          break;
        }
        case 4: {
          XenAddToPhysmap.domid.set(args, 0, DOMID.SELF);
          const space = random(3);
          XenAddToPhysmap.space.set(args, 0, space);
          XenAddToPhysmap.idx.set(args, 0, BigInt(space === XENMAPSPACE.gmfn ? 100 + random(40) : random(3)));
          XenAddToPhysmap.gpfn.set(args, 0, BigInt(100 + random(40)));
          this.#memory.write(slot, new Uint8Array(args.buffer));
          this.#call(HYPERVISOR.memory_op, XENMEM.add_to_physmap, slot);
          break;
        }
        case 6: this.#call(HYPERVISOR.sched_op, SCHEDOP.yield); break;
        case 5: { /* a timer first, so that it wakes again */
          args.setBigUint64(0, BigInt(p.hv.clock.now() + 200_000), true);
          this.#memory.write(slot, new Uint8Array(args.buffer));
          this.#call(HYPERVISOR.vcpu_op, VCPUOP.set_singleshot_timer, p.v.id, slot);
          if (random(2)) return EXIT.halt;
          this.#call(HYPERVISOR.sched_op, SCHEDOP.block);
          break;
        }
        default: this.#call(HYPERVISOR.xen_version, 0);
      }
      const exit = CPU.exit.get(dv, this.#at);
      if (exit) return exit;
    }
    return EXIT.slice;
  }
}
try {
  new Pcpu(MachineMemory.attach(memory), index, (_memory, at, platform) => new RandomEngine(at, platform as PvhPlatform) as unknown as Engine).run();
  parentPort!.postMessage("stopped");
} catch (e) {
  parentPort!.postMessage(e instanceof Error ? e.stack : String(e));
}
