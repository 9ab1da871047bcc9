/**
 * The memory of one machine: a shared WebAssembly.Memory that begins with the Xen heap and goes on with 4 KiB frames.
 *
 *     0        MACHINE header, one page
 *     0x1000   hypervisor area (its structs are the hypervisor's), HYPERVISOR_BYTES
 *              trace ring
 *              frame table, FRAME.sizeof a frame of the whole memory
 *              code store (x86/code-store.ts), 64 KiB aligned
 *              pCPU areas
 *              frames, from `firstFrame` to the end
 */
import { assert, UserError } from "../base/errors.ts";
import { bytes, f64, i32, struct, u32 } from "../base/struct.ts";
import { Views } from "../base/views.ts";
import { FRAME, Frames } from "./frames.ts";

/** A frame. */
export const PAGE_SIZE = 4096, PAGE_SHIFT = 12;
const WASM_PAGE = 65536, MAGIC = 0x756d6f64 /* "domu" */, VERSION = 1;
/** Room for the hypervisor's root struct. */
export const HYPERVISOR_BYTES = 0x27000;
const DEFAULT_TRACE_BYTES = 1 << 20;

/** The machine header, at address 0. Written once by `create`, but for the allocator's words. */
export const MACHINE = struct(PAGE_SIZE, {
  magic: u32(0x00), version: u32(0x04),
  nrFrames: u32(0x08), firstFrame: u32(0x0c),
  nrPcpus: u32(0x10), pcpuBytes: u32(0x14), pcpus: u32(0x18),
  frameTable: u32(0x1c), hypervisor: u32(0x20), trace: u32(0x24), traceBytes: u32(0x28),
  /** milliseconds since 1970 when the machine began: its system time counts from here */
  epochMs: f64(0x30),
  codeStore: u32(0x38), codeStoreBytes: u32(0x3c),
  /** allocator: frames from `bump` up were never used (and are zero); `freeHead` heads a list through their entries in the frame table */
  frameLock: i32(0x40), bump: u32(0x44), freeHead: u32(0x48), nrFree: u32(0x4c),
  spare: bytes(0x50, PAGE_SIZE - 0x50),
});

/** What a machine's memory is made with. */
export type MachineOptions = {
  /** size of the whole memory, a multiple of 64 KiB, at most 4 GiB */
  bytes: number;
  nrPcpus: number;
  /** bytes of private area a pCPU wants, a multiple of 64 KiB */
  pcpuBytes: number;
  traceBytes?: number;
  /** room for the code that pCPUs share, a multiple of 64 KiB */
  codeStoreBytes?: number;
};
const up = (n: number, to: number): number => Math.ceil(n / to) * to;

/** Bytes of a machine that are not frames for guests: what `create` adds to the guests' memory. */
export function heapBytes(o: MachineOptions): number {
  const frameTable = up(PAGE_SIZE + HYPERVISOR_BYTES + (o.traceBytes ?? DEFAULT_TRACE_BYTES), PAGE_SIZE);
  return up(frameTable + (o.bytes / PAGE_SIZE) * FRAME.sizeof, WASM_PAGE) + (o.codeStoreBytes ?? 0) + o.nrPcpus * o.pcpuBytes;
}

/** One thread's view of the machine's memory. */
export class MachineMemory {
  readonly memory: WebAssembly.Memory;
  readonly views: Views;
  readonly frames: Frames;
  readonly nrPcpus: number;
  readonly #pcpus: number;
  readonly #pcpuBytes: number;

  private constructor(memory: WebAssembly.Memory) {
    this.memory = memory;
    this.views = new Views(memory.buffer as unknown as SharedArrayBuffer);
    const { dv } = this.views;
    this.nrPcpus = MACHINE.nrPcpus.get(dv, 0);
    this.#pcpus = MACHINE.pcpus.get(dv, 0);
    this.#pcpuBytes = MACHINE.pcpuBytes.get(dv, 0);
    this.frames = new Frames(this.views);
  }

  /** Make a machine's memory. Pages nobody touches cost the host nothing. */
  static create(o: MachineOptions): MachineMemory {
    assert(o.nrPcpus >= 1 && o.nrPcpus <= 32, `nrPcpus ${o.nrPcpus}`);
    assert(o.pcpuBytes > 0 && o.pcpuBytes % WASM_PAGE === 0, `pcpuBytes ${o.pcpuBytes}`);
    assert((o.codeStoreBytes ?? 0) % WASM_PAGE === 0, `codeStoreBytes ${o.codeStoreBytes}`);
    if (!(o.bytes > 0 && o.bytes <= 2 ** 32 && o.bytes % WASM_PAGE === 0)) {
      throw new UserError(`A machine of ${o.bytes} bytes cannot be made: use a multiple of 64 KiB up to 4 GiB`);
    }
    const heap = heapBytes(o);
    if (heap + PAGE_SIZE > o.bytes) throw new UserError(`A machine of ${o.bytes >>> 20} MiB is too small: its own state takes ${Math.ceil(heap / 2 ** 20)} MiB`);
    const pages = o.bytes / WASM_PAGE;
    let memory: WebAssembly.Memory;
    try {
      memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    } catch (cause) {
      throw new UserError(`The host refuses ${Math.ceil(o.bytes / 2 ** 20)} MiB of memory for a machine`, { cause });
    }
    const dv = new DataView(memory.buffer);
    const trace = PAGE_SIZE + HYPERVISOR_BYTES, traceBytes = o.traceBytes ?? DEFAULT_TRACE_BYTES;
    const frameTable = up(trace + traceBytes, PAGE_SIZE);
    const nrFrames = o.bytes / PAGE_SIZE, firstFrame = heap / PAGE_SIZE;
    MACHINE.version.set(dv, 0, VERSION);
    MACHINE.nrFrames.set(dv, 0, nrFrames);
    MACHINE.firstFrame.set(dv, 0, firstFrame);
    MACHINE.nrPcpus.set(dv, 0, o.nrPcpus);
    MACHINE.pcpuBytes.set(dv, 0, o.pcpuBytes);
    MACHINE.pcpus.set(dv, 0, heap - o.nrPcpus * o.pcpuBytes);
    MACHINE.codeStoreBytes.set(dv, 0, o.codeStoreBytes ?? 0);
    MACHINE.codeStore.set(dv, 0, heap - o.nrPcpus * o.pcpuBytes - (o.codeStoreBytes ?? 0));
    MACHINE.frameTable.set(dv, 0, frameTable);
    MACHINE.hypervisor.set(dv, 0, PAGE_SIZE);
    MACHINE.trace.set(dv, 0, trace);
    MACHINE.traceBytes.set(dv, 0, traceBytes);
    MACHINE.epochMs.set(dv, 0, performance.timeOrigin + performance.now());
    MACHINE.bump.set(dv, 0, firstFrame);
    MACHINE.nrFree.set(dv, 0, nrFrames - firstFrame);
    MACHINE.magic.set(dv, 0, MAGIC);
    return new MachineMemory(memory);
  }

  /** Look at a machine's memory from another thread. */
  static attach(memory: WebAssembly.Memory): MachineMemory {
    const dv = new DataView(memory.buffer);
    assert(MACHINE.magic.get(dv, 0) === MAGIC && MACHINE.version.get(dv, 0) === VERSION, "not a machine's memory");
    return new MachineMemory(memory);
  }

  /** Byte address of a pCPU's private area. */
  pcpuAt(i: number): number {
    assert(i >= 0 && i < this.nrPcpus, `pCPU ${i}`);
    return this.#pcpus + i * this.#pcpuBytes;
  }
  /** Room for the code that pCPUs share; none where the machine was made without. */
  get codeStore(): { at: number; sizeBytes: number } | null {
    const { dv } = this.views, sizeBytes = MACHINE.codeStoreBytes.get(dv, 0);
    return sizeBytes === 0 ? null : { at: MACHINE.codeStore.get(dv, 0), sizeBytes };
  }
  get hypervisor(): number { return MACHINE.hypervisor.get(this.views.dv, 0); }
  get trace(): { at: number; sizeBytes: number } {
    return { at: MACHINE.trace.get(this.views.dv, 0), sizeBytes: MACHINE.traceBytes.get(this.views.dv, 0) };
  }
  get epochMs(): number { return MACHINE.epochMs.get(this.views.dv, 0); }
}
