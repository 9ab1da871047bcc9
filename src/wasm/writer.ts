/** A WebAssembly binary writer. It has never heard of x86. WebAssembly Core 3.0, section 5; branch hints: custom section metadata.code.branch_hint. */
import { Op } from "./opcodes.ts";

export const I32 = 0x7f, I64 = 0x7e, F32 = 0x7d, F64 = 0x7c, V128 = 0x7b, VOID = 0x40;
export type Ty = typeof I32 | typeof I64 | typeof F32 | typeof F64 | typeof V128;

export class Bytes {
  buf = new Uint8Array(128);
  n = 0;
  private grow(k: number): void {
    if (this.n + k <= this.buf.length) return;
    const b = new Uint8Array(Math.max(this.buf.length * 2, this.n + k));
    b.set(this.buf.subarray(0, this.n)); this.buf = b;
  }
  u8(x: number): this { if (this.n === this.buf.length) this.grow(1); this.buf[this.n++] = x; return this; }
  bytes(x: Uint8Array): this { this.grow(x.length); this.buf.set(x, this.n); this.n += x.length; return this; }
  u32(x: number): this {
    while (x >= 0x80) { this.u8(x % 128 | 0x80); x = Math.floor(x / 128); }
    return this.u8(x);
  }
  /** Signed LEB of a safe integer (|x| < 2^53). */
  s(x: number): this {
    for (;;) {
      if (x >= -64 && x < 64) return this.u8(x & 0x7f);
      this.u8(((x % 128 + 128) % 128) | 0x80);
      x = Math.floor(x / 128);
    }
  }
  s64(x: bigint): this {
    for (;;) {
      if (x >= -64n && x < 64n) return this.u8(Number(x & 0x7fn));
      this.u8(Number(x & 0x7fn) | 0x80); x >>= 7n;
    }
  }
  str(x: string): this { const b = new TextEncoder().encode(x); return this.u32(b.length).bytes(b); }
  done(): Uint8Array<ArrayBuffer> { return this.buf.slice(0, this.n); }
}

/** One function body. A label is the depth of its block; `br` turns it into a relative index. */
export class Code extends Bytes {
  depth = 0;
  readonly params: number;
  readonly types: Ty[] = [];
  /** Branch hints: [byte offset, likely]. */
  hints: [number, number][] = [];
  constructor(params: number) { super(); this.params = params; }
  local(ty: Ty): number { this.types.push(ty); return this.params + this.types.length - 1; }
  op(o: number): this { return o < 0x10000 ? this.u8(o) : this.u8(o >> 16).u32(o & 0xffff); }
  get(l: number): this { return this.u8(Op.local_get).u32(l); }
  set(l: number): this { return this.u8(Op.local_set).u32(l); }
  tee(l: number): this { return this.u8(Op.local_tee).u32(l); }
  i32(x: number): this { return this.u8(Op.i32_const).s(x | 0); }
  i64(x: number): this { return this.u8(Op.i64_const).s(x); }
  i64big(x: bigint): this { return this.u8(Op.i64_const).s64(BigInt.asIntN(64, x)); }
  /** A load or store. `align` is the exponent: atomics need the natural one. */
  mem(o: number, offset: number, align = 0): this { return this.op(o).u8(align).u32(offset); }
  block(ty: number = VOID): number { this.u8(Op.block).u8(ty); return ++this.depth; }
  loop(ty: number = VOID): number { this.u8(Op.loop).u8(ty); return ++this.depth; }
  if_(ty: number = VOID): number { this.u8(Op.if).u8(ty); return ++this.depth; }
  else_(): this { return this.u8(Op.else); }
  end(): this { this.depth--; return this.u8(Op.end); }
  br(label: number): this { return this.u8(Op.br).u32(this.depth - label); }
  brIf(label: number): this { return this.u8(Op.br_if).u32(this.depth - label); }
  brTable(labels: number[], dflt: number): this {
    this.u8(Op.br_table).u32(labels.length);
    for (const l of labels) this.u32(this.depth - l);
    return this.u32(this.depth - dflt);
  }
  call(f: number): this { return this.u8(Op.call).u32(f); }
  returnCall(f: number): this { return this.u8(Op.return_call).u32(f); }
  callIndirect(type: number): this { return this.u8(Op.call_indirect).u32(type).u32(0); }
  returnCallIndirect(type: number): this { return this.u8(Op.return_call_indirect).u32(type).u32(0); }
  /** The next instruction (if / br_if) is unlikely to be taken. */
  unlikely(): this { this.hints.push([this.n, 0]); return this; }
  /** Put code, which has no labels of its own that reach out of it, before what begins at byte `at`. */
  insert(at: number, x: Bytes): void {
    this.bytes(x.buf.subarray(0, x.n));
    this.buf.copyWithin(at + x.n, at, this.n - x.n);
    this.buf.set(x.buf.subarray(0, x.n), at);
    for (let k = this.hints.length - 1; k >= 0 && this.hints[k]![0] >= at; k--) this.hints[k]![0] += x.n;
  }
  locals(out: Bytes): void {
    const runs: [number, Ty][] = [];
    for (const t of this.types) { const r = runs[runs.length - 1]; if (r && r[1] === t) r[0]++; else runs.push([1, t]); }
    out.u32(runs.length);
    for (const [n, t] of runs) out.u32(n).u8(t);
  }
}

export type FuncType = { params: readonly Ty[]; results: readonly Ty[] };
export type MemorySpec = { min: number; max: number; shared: boolean };
export type Import = { name: string; type?: number; memory?: MemorySpec; table?: number; /** a number that does not change */ global?: Ty };

function writeSection(out: Bytes, id: number, fill: (s: Bytes) => void): void {
  const s = new Bytes();
  fill(s);
  out.u8(id).u32(s.n).bytes(s.buf.subarray(0, s.n));
}
/** A module: imports all come from the module name "e". Functions may be placed in an imported table at given slots. */
export class Module {
  readonly types: FuncType[] = [];
  readonly imports: Import[] = [];
  /** types and imports as they are encoded, where they are those of the module that this one was made like */
  private head: { readonly bytes: Bytes; readonly nrTypes: number; readonly nrImports: number } | null = null;
  /** functions that are imported beside `imports`, in a head from elsewhere */
  private nrForeign = 0;
  readonly funcs: { type: number; code: Code; export?: string }[] = [];
  /** Table slots for the module's own functions: [slot, function index]. */
  readonly elems: [slot: number, func: number][] = [];
  /** Or all of them, in order, from the slot that this imported global says. */
  elemsFrom: number | undefined;

  type(params: readonly Ty[], results: readonly Ty[]): number {
    const same = this.types.findIndex(t => t.params.join() === params.join() && t.results.join() === results.join());
    return same >= 0 ? same : this.types.push({ params, results }) - 1;
  }
  /** An empty module with the types and imports that this one has now: they are encoded once for all such modules. */
  like(): Module {
    const m = new Module();
    m.types.push(...this.types); m.imports.push(...this.imports);
    m.elemsFrom = this.elemsFrom;
    if (!this.hasHead()) {
      const bytes = new Bytes();
      this.writeHead(bytes);
      this.head = { bytes, nrTypes: this.types.length, nrImports: this.imports.length };
    }
    m.head = this.head;
    return m;
  }
  /** An empty module with types and imports that are encoded already, `nrFunctions` of them functions. */
  static withHead(bytes: Uint8Array, nrFunctions: number): Module {
    const m = new Module();
    m.head = { bytes: new Bytes().bytes(bytes), nrTypes: 0, nrImports: 0 };
    m.nrForeign = nrFunctions;
    return m;
  }
  private hasHead(): boolean { return this.head?.nrTypes === this.types.length && this.head.nrImports === this.imports.length; }
  importCount(): number { return this.nrForeign + this.imports.filter(i => i.type !== undefined).length; }

  private writeHead(out: Bytes): void {
    writeSection(out, 1, s => { s.u32(this.types.length); for (const t of this.types) { s.u8(0x60).u32(t.params.length); for (const p of t.params) s.u8(p); s.u32(t.results.length); for (const r of t.results) s.u8(r); } });
    writeSection(out, 2, s => {
      s.u32(this.imports.length);
      for (const i of this.imports) {
        s.str("e").str(i.name);
        if (i.memory) s.u8(2).u8(i.memory.shared ? 3 : 1).u32(i.memory.min).u32(i.memory.max);
        else if (i.table !== undefined) s.u8(1).u8(0x70).u8(0).u32(i.table);
        else if (i.global !== undefined) s.u8(3).u8(i.global).u8(0);
        else s.u8(0).u32(i.type!);
      }
    });
  }
  encode(): Uint8Array<ArrayBuffer> {
    const out = new Bytes();
    for (const b of [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]) out.u8(b);
    const section = (id: number, fill: (s: Bytes) => void) => writeSection(out, id, fill);
    if (this.hasHead()) out.bytes(this.head!.bytes.buf.subarray(0, this.head!.bytes.n));
    else this.writeHead(out);
    section(3, s => { s.u32(this.funcs.length); for (const f of this.funcs) s.u32(f.type); });
    const base = this.importCount();
    section(7, s => {
      const ex = this.funcs.map((f, i) => [f.export, i] as const).filter(x => x[0]);
      s.u32(ex.length); for (const [name, i] of ex) s.str(name!).u8(0).u32(base + i);
    });
    if (this.elemsFrom !== undefined) section(9, s => {
      s.u32(1).u8(0).u8(Op.global_get).u32(this.elemsFrom!).u8(Op.end).u32(this.funcs.length);
      this.funcs.forEach((_, n) => { s.u32(base + n); });
    });
    else if (this.elems.length) section(9, s => {
      s.u32(this.elems.length);
      for (const [slot, func] of this.elems) s.u8(0).u8(Op.i32_const).s(slot).u8(Op.end).u32(1).u32(base + func);
    });
    const heads = this.funcs.map(f => { const h = new Bytes(); f.code.locals(h); return h; });
    if (this.funcs.some(f => f.code.hints.length)) section(0, s => {
      s.str("metadata.code.branch_hint");
      const hinted = this.funcs.map((f, i) => [f, i] as const).filter(([f]) => f.code.hints.length);
      s.u32(hinted.length);
      for (const [f, i] of hinted) {
        s.u32(base + i).u32(f.code.hints.length);
        for (const [at, v] of f.code.hints) s.u32(at + heads[i]!.n).u8(1).u8(v);
      }
    });
    section(10, s => {
      s.u32(this.funcs.length);
      this.funcs.forEach((f, i) => { const h = heads[i]!; s.u32(h.n + f.code.n + 1).bytes(h.buf.subarray(0, h.n)).bytes(f.code.buf.subarray(0, f.code.n)).u8(Op.end); });
    });
    return out.done();
  }
}
