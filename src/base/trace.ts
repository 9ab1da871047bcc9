/**
 * A trace: fixed records of 32 bytes in a ring in shared memory, written by all threads, decoded to text on request. Off, it costs one
 * test of a bit. A record overwritten while it is read shows as nonsense; the trace is for looking, not for deciding.
 */
import { bytes, f64, i32, struct, u16, u32 } from "./struct.ts";
import type { Views } from "./views.ts";

export const TRACE_CLASS = { exit: 1, hypercall: 2, exception: 4, interrupt: 8, event: 16, timer: 32, sched: 64, memory: 128, io: 256, error: 512 } as const;
export type TraceClass = keyof typeof TRACE_CLASS;

export const TRACE_HEADER = struct(32, { on: u32(0), next: u32(4), size: u32(8), spare: bytes(12, 20) });
export const TRACE_RECORD = struct(32, { timeNs: f64(0), event: u16(8), domid: u16(10), vcpu: u16(12), pcpu: u16(14), a: i32(16), b: i32(20), c: i32(24), d: i32(28) });

/** What a record's numbers mean. Numbers are kept: a saved trace stays readable. */
export const TRACE = {
  exit: 1, hypercall: 2, hypercallDone: 3, exception: 4, interrupt: 5, evtchnSend: 6, evtchnPending: 7, timerSet: 8, timerFired: 9, vcpuRun: 10,
  vcpuBlock: 11, vcpuWake: 12, p2mSet: 13, p2mClear: 14, ioRead: 15, ioWrite: 16, mmio: 17, msrUnknown: 18, domainShutdown: 19, notImplemented: 20,
} as const;
const hex = (n: number): string => `0x${(n >>> 0).toString(16)}`, wide = (lo: number, hi: number): string => `0x${(BigInt.asUintN(32, BigInt(hi)) << 32n | BigInt.asUintN(32, BigInt(lo))).toString(16)}`;
const TEXT: Readonly<Record<number, { cls: TraceClass; say: (a: number, b: number, c: number, d: number) => string }>> = {
  1: { cls: "exit", say: (a, b, c) => `exit ${a} at ${wide(b, c)}` },
  2: { cls: "hypercall", say: (a, b, c, d) => `hypercall ${a} (${hex(b)}, ${wide(c, d)})` },
  3: { cls: "hypercall", say: (a, b) => `hypercall ${a} = ${b}` },
  4: { cls: "exception", say: (a, b, c, d) => `exception ${a} error ${hex(b)} at ${wide(c, d)}` },
  5: { cls: "interrupt", say: (a) => `interrupt vector ${hex(a)}` },
  6: { cls: "event", say: (a, b, c) => `send port ${a} to d${b} port ${c}` },
  7: { cls: "event", say: (a, b) => `port ${a} pending for v${b}` },
  8: { cls: "timer", say: (a, b, c) => `timer ${a} set for ${wide(b, c)}` },
  9: { cls: "timer", say: (a) => `timer ${a} fired` },
  10: { cls: "sched", say: (a, b, c) => `runs at ${wide(b, c)}, budget ${a}` },
  11: { cls: "sched", say: (a) => `leaves, pause flags ${hex(a)}` },
  12: { cls: "sched", say: () => "woken" },
  13: { cls: "memory", say: (a, b, c) => `gfn ${hex(a)} -> mfn ${hex(b)} type ${hex(c)}` },
  14: { cls: "memory", say: (a, b) => `gfn ${hex(a)} cleared, was mfn ${hex(b)}` },
  15: { cls: "io", say: (a, b, c) => `in port ${hex(a)} size ${b} = ${hex(c)}` },
  16: { cls: "io", say: (a, b, c) => `out port ${hex(a)} size ${b} = ${hex(c)}` },
  17: { cls: "io", say: (a, b, c, d) => `${a ? "write" : "read"} of guest-physical ${wide(b, c)} = ${hex(d)}` },
  18: { cls: "error", say: (a, b, c, d) => `${b ? `wrmsr ${hex(a)} = ${wide(c, d)}` : `rdmsr ${hex(a)}`}: no such register` },
  19: { cls: "error", say: (a) => `domain shut down, reason ${a}` },
  20: { cls: "error", say: (a, b) => `not implemented: hypercall ${a} op ${b}` },
};

/** A record, decoded; `nr` counts all that were ever written. */
export type TraceEntry = { readonly nr: number; readonly timeNs: number; readonly event: number; readonly cls: TraceClass; readonly domid: number; readonly vcpu: number; /** -1: not a pCPU's thread */ readonly pcpu: number; readonly args: readonly [number, number, number, number]; readonly text: string };

export class Trace {
  readonly #views: Views;
  readonly #at: number;
  readonly #nr: number;
  readonly #now: () => number;
  pcpu = 0xffff;

  constructor(views: Views, at: number, sizeBytes: number, now: () => number) {
    this.#views = views;
    this.#at = at;
    this.#nr = Math.max(0, Math.floor((sizeBytes - TRACE_HEADER.sizeof) / TRACE_RECORD.sizeof));
    this.#now = now;
  }
  /** Bits of the classes that are recorded. */
  get on(): number { return this.#views.i32[this.#at >>> 2] as number; }
  set on(classes: number) { Atomics.store(this.#views.i32, this.#at >>> 2, this.#nr === 0 ? 0 : classes); }

  /** Write a record; test `on` first: `if (trace.on & TRACE_CLASS.event) trace.emit(...)`. */
  emit(event: number, domid: number, vcpu: number, a = 0, b = 0, c = 0, d = 0): void {
    if (this.#nr === 0) return;
    const i = (Atomics.add(this.#views.u32, (this.#at + TRACE_HEADER.next.at) >>> 2, 1) >>> 0) % this.#nr, { i32, u16, f64 } = this.#views;
    const at = this.#at + TRACE_HEADER.sizeof + i * TRACE_RECORD.sizeof;
    f64[at >>> 3] = this.#now();
    u16[(at + 8) >>> 1] = event; u16[(at + 10) >>> 1] = domid; u16[(at + 12) >>> 1] = vcpu; u16[(at + 14) >>> 1] = this.pcpu;
    i32[(at + 16) >>> 2] = a; i32[(at + 20) >>> 2] = b; i32[(at + 24) >>> 2] = c; i32[(at + 28) >>> 2] = d;
  }

  /** How many records were ever written. */
  get nrWritten(): number { return Atomics.load(this.#views.u32, (this.#at + TRACE_HEADER.next.at) >>> 2); }
  /** Records from number `from` on, as far as they are still there, the last `most` of them, oldest first: for a reader that comes again and again. */
  read(from: number, most: number): TraceEntry[] {
    const next = this.nrWritten, { dv } = this.#views, R = TRACE_RECORD, found: TraceEntry[] = [];
    for (let nr = Math.max(from, 0, next - this.#nr, next - most); nr < next; nr++) {
      const at = this.#at + TRACE_HEADER.sizeof + (nr % this.#nr) * R.sizeof, event = R.event.get(dv, at), row = TEXT[event];
      if (!row) continue;
      const args = [R.a.get(dv, at), R.b.get(dv, at), R.c.get(dv, at), R.d.get(dv, at)] as const, cpu = R.pcpu.get(dv, at);
      found.push({ nr, timeNs: R.timeNs.get(dv, at), event, cls: row.cls, domid: R.domid.get(dv, at), vcpu: R.vcpu.get(dv, at), pcpu: cpu === 0xffff ? -1 : cpu, args, text: row.say(...args) });
    }
    return found;
  }

  /** The last records, oldest first, as lines. */
  text(last = this.#nr, of: (record: { event: number; domid: number; cls: TraceClass }) => boolean = () => true): string[] {
    const next = Atomics.load(this.#views.u32, (this.#at + TRACE_HEADER.next.at) >>> 2), { dv } = this.#views, lines: string[] = [];
    for (let n = Math.max(0, next - this.#nr); n < next; n++) {
      const at = this.#at + TRACE_HEADER.sizeof + (n % this.#nr) * TRACE_RECORD.sizeof, R = TRACE_RECORD;
      const event = R.event.get(dv, at), domid = R.domid.get(dv, at), row = TEXT[event];
      if (!row || !of({ event, domid, cls: row.cls })) continue;
      const cpu = R.pcpu.get(dv, at);
      lines.push(`${(R.timeNs.get(dv, at) / 1e6).toFixed(3).padStart(12)} ${cpu === 0xffff ? "  -" : `p${cpu}`.padStart(3)} d${domid}v${R.vcpu.get(dv, at)} `
        + row.say(R.a.get(dv, at), R.b.get(dv, at), R.c.get(dv, at), R.d.get(dv, at)));
    }
    return lines.slice(-last);
  }
}
/** "hypercall,event" or "all" to bits. @returns the first word that is no class, if any */
export function traceClasses(words: string): { bits: number; unknown?: string } {
  let bits = 0;
  for (const word of words.split(",").map((w) => w.trim()).filter(Boolean)) {
    if (word === "all") bits = ~0;
    else if (word in TRACE_CLASS) bits |= TRACE_CLASS[word as TraceClass];
    else return { bits, unknown: word };
  }
  return { bits };
}
