/**
 * Reads what src/wasm/writer.ts writes and prints a function's body as lines that a person can compare: one statement a line, expressions folded,
 * blocks indented. Only the opcodes of src/wasm/opcodes.ts are known, by the names they have there. Notation:
 *
 *     x := e              local.set; inside an expression (x := e) is local.tee
 *     i64.load[a + 8]     a memory access with its offset; a store is  i32.store[a] := e
 *     push e ... pop      a value that waits on the stack while statements are executed
 *     block @2, br @2     labels are named by their depth
 *     unlikely            a branch hint says so
 */
import { Op } from "../../src/wasm/opcodes.ts";

/** What the reader wants to be called by name. */
export type TextNames = {
  local?(index: number): string | undefined;
  /** A place in memory: the name of the local that holds its base, and the offset from there. */
  place?(base: string, offset: number): string | undefined;
};
export type WasmType = { readonly params: number; readonly results: number };
/** `size`: bytes of the body as the file counts them, declarations of locals included. `hints`: by offset in `code`, what branches are unlikely. */
export type WasmFunction = { readonly name: string; readonly type: WasmType; readonly nrLocals: number; readonly code: Uint8Array; readonly size: number; readonly unlikely: ReadonlySet<number> };
export type WasmModule = { readonly types: readonly WasmType[]; readonly imports: readonly { readonly name: string; readonly type: WasmType }[]; readonly functions: readonly WasmFunction[] };

class Reader {
  at: number;
  readonly b: Uint8Array;
  constructor(b: Uint8Array, at = 0) { this.b = b; this.at = at; }
  u8(): number { if (this.at >= this.b.length) throw new Error("The WebAssembly ends too early"); return this.b[this.at++]!; }
  u32(): number { return Number(BigInt.asUintN(32, this.leb(false))); }
  leb(signed: boolean): bigint {
    for (let x = 0n, shift = 0n; ; ) {
      const byte = this.u8();
      x |= BigInt(byte & 0x7f) << shift; shift += 7n;
      if (byte < 0x80) return signed && byte & 0x40 ? x - (1n << shift) : x;
    }
  }
  bytes(n: number): Uint8Array { this.at += n; return this.b.subarray(this.at - n, this.at); }
  name(): string { return new TextDecoder().decode(this.bytes(this.u32())); }
  list<T>(one: (i: number) => T): T[] { return Array.from({ length: this.u32() }, (_, i) => one(i)); }
}

/** The functions of a module, with what names them. WebAssembly Core 3.0, section 5.5. */
export function readModule(file: Uint8Array): WasmModule {
  const r = new Reader(file, 8), types: WasmType[] = [], imports: { name: string; type: WasmType }[] = [], typeOf: number[] = [], exports = new Map<number, string>(), bodies: Uint8Array[] = [], hints = new Map<number, [number, number][]>();
  while (r.at < file.length) {
    const id = r.u8(), s = new Reader(r.bytes(r.u32()));
    if (id === 1) s.list(() => { s.u8(); const params = s.list(() => s.u8()).length, results = s.list(() => s.u8()).length; types.push({ params, results }); });
    else if (id === 2) s.list(() => {
      s.name();
      const name = s.name(), kind = s.u8();
      if (kind === 0) { imports.push({ name, type: types[s.u32()]! }); return; }
      if (kind === 3) { s.u8(); s.u8(); return; }
      if (kind === 1) s.u8();                     // a table's element type
      const limits = s.u8(); s.u32(); if (limits & 1) s.u32();
    });
    else if (id === 3) s.list(() => typeOf.push(s.u32()));
    else if (id === 7) s.list(() => { const name = s.name(); if (s.u8() === 0) exports.set(s.u32(), name); else s.u32(); });
    else if (id === 10) s.list(() => bodies.push(s.bytes(s.u32())));
    else if (id === 0 && s.name() === "metadata.code.branch_hint") s.list(() => { const f = s.u32(); hints.set(f, s.list(() => { const at = s.u32(); s.u8(); return [at, s.u8()] as [number, number]; })); });
  }
  const functions = bodies.map((body, i): WasmFunction => {
    const b = new Reader(body), type = types[typeOf[i]!]!, nrLocals = type.params + b.list(() => { const n = b.u32(); b.u8(); return n; }).reduce((x, y) => x + y, 0), head = b.at;
    return { name: exports.get(imports.length + i) ?? `function ${i}`, type, nrLocals, code: body.subarray(head), size: body.length, unlikely: new Set((hints.get(imports.length + i) ?? []).filter(([, likely]) => !likely).map(([at]) => at - head)) };
  });
  return { types, imports, functions };
}

const OPCODES = new Map<number, string>(Object.entries(Op).map(([name, code]) => [code, name.replace(/^([ifv]\d+(?:x\d+)?|memory)_(?:(atomic)_)?/, (_, ty, atomic) => `${ty}.${atomic ? "atomic." : ""}`)]));
const SELECT_TYPED = 0x1c, VOID = 0x40;
const UNARY = /\.(eqz|clz|ctz|popcnt|abs|neg|sqrt|ceil|floor|trunc|nearest|not|any_true|all_true|bitmask|wrap_\w+|(extend|convert|demote|promote|reinterpret|trunc_sat|extadd_pairwise|extract_lane)\w*|splat)$/;
/** How many values it takes; all of these leave one. */
const operands = (name: string): number => (/const$/.test(name) ? 0 : /\.load|splat$/.test(name) || UNARY.test(name) ? 1 : /bitselect|cmpxchg/.test(name) ? 3 : 2);
const isAccess = (name: string): boolean => /\.load|\.store|cmpxchg/.test(name);

/** An expression: leaves have no parts. `stays`: whatever is executed meanwhile, it is the same later. */
type Tree = { readonly head: string; readonly parts: readonly Tree[]; readonly tail: string; readonly stays: boolean; readonly comma: string };
const tree = (head: string, parts: readonly Tree[] = [], tail = "", comma = ","): Tree => ({ head, parts, tail, stays: false, comma });
const leaf = (head: string): Tree => ({ ...tree(head), stays: true });
const POP = leaf("pop"), NOTHING = leaf("?");
const WIDTH = 150;

const flat = (t: Tree): string => t.head + t.parts.map(flat).join(t.comma && `${t.comma} `) + t.tail;
/** A tree as lines of bearable length. */
function unfold(t: Tree, indent: string): string[] {
  const one = indent + flat(t);
  if (one.length <= WIDTH || t.parts.length === 0) return [one];
  const parts = t.parts.flatMap((p, i) => { const lines = unfold(p, t.head || i ? `${indent}  ` : indent); if (i < t.parts.length - 1) lines[lines.length - 1] += t.comma; return lines; });
  return [...(t.head ? [indent + t.head.trimEnd()] : []), ...parts, ...(t.tail ? [indent + t.tail.trim()] : [])];
}
const number = (x: bigint): string => (x > -1000n && x < 1000n ? String(x) : x < 0n ? `-0x${(-x).toString(16)}` : `0x${x.toString(16)}`);
const hex = (b: Uint8Array): string => [...b].map(x => x.toString(16).padStart(2, "0")).join("");

type Frame = { readonly kind: string; readonly base: number; readonly results: number; isDead: boolean };

/** A function's body as lines. @throws Error when it knows an opcode or the stack's height wrong */
export function functionText(m: WasmModule, f: WasmFunction, names: TextNames = {}): string[] {
  const written = new Set<number>();
  walk(m, f, names, new Set(), i => written.add(i));
  return walk(m, f, names, written, () => {});
}
function walk(m: WasmModule, f: WasmFunction, names: TextNames, written: ReadonlySet<number>, writes: (local: number) => void): string[] {
  const r = new Reader(f.code), lines: string[] = [], frames: Frame[] = [{ kind: "function", base: 0, results: f.type.results, isDead: false }];
  let stack: Tree[] = [];
  const top = () => frames[frames.length - 1]!;
  const fail = (what: string): never => { throw new Error(`Assertion failed: ${f.name}+${r.at}: ${what}`); };
  const pop = (): Tree => (stack.length > top().base ? stack.pop()! : top().isDead ? NOTHING : fail("the stack is empty"));
  const popAll = (n: number): Tree[] => Array.from({ length: n }, pop).reverse();
  const say = (t: Tree): void => { lines.push(...unfold(t, "  ".repeat(frames.length - 1))); };
  /** A statement comes: what waits on the stack has been evaluated before it. */
  const settle = (): void => { stack = stack.map(t => { if (t.stays) return t; say(tree("push ", [t])); return POP; }); };
  const statement = (head: string, parts: readonly Tree[] = [], tail = "", comma = ","): void => { settle(); say(tree(head, parts, tail, comma)); };
  const die = (): void => { stack.length = top().base; top().isDead = true; };
  const nameOf = (i: number): string => names.local?.(i) ?? `$${i}`;
  const label = (): string => { const n = frames.length - 1 - r.u32(); return n < 0 ? fail("a branch out of the function") : `@${n}`; };
  const access = (name: string, address: Tree, align: number, offset: number): Tree => {
    const place = names.place?.(flat(address), offset), end = `]${align ? ` align ${align}` : ""}`;
    return place === undefined ? tree(`${name}[`, [address], `${offset ? ` + ${offset}` : ""}${end}`) : tree(`${name}[${place}${end}`);
  };
  const invoke = (head: string, args: readonly Tree[], type: WasmType): void => { if (type.results === 1) { stack.push(tree(head, args, ")")); return; } statement(type.results ? `push ${head}` : head, args, ")"); for (let i = 0; i < type.results; i++) stack.push(POP); };
  const enter = (kind: string): void => {
    const ty = r.u8(), results = ty === VOID ? 0 : 1, at = r.at - 2, cond = kind === "if" ? [pop()] : [];
    statement(`${kind} @${frames.length}${f.unlikely.has(at) ? " unlikely" : ""}${cond.length ? " " : ""}`, cond);
    frames.push({ kind, base: stack.length, results, isDead: false });
  };
  const leave = (): void => {
    settle();
    const { base, results, isDead } = top(), given = results && !isDead ? stack.at(-1)! : POP;
    if (given !== POP) say(tree("push ", [given]));
    if (!isDead && stack.length !== base + results) fail(`${stack.length - base} values at the end of a block that gives ${results}`);
    stack.length = base;
  };

  while (r.at < f.code.length) {
    const at = r.at, byte = r.u8(), op = byte >= 0xfc ? byte << 16 | r.u32() : byte;
    switch (op) {
      case Op.unreachable: statement("unreachable"); die(); continue;
      case Op.block: enter("block"); continue;
      case Op.loop: enter("loop"); continue;
      case Op.if: enter("if"); continue;
      case Op.else: { leave(); const was = frames.pop()!; say(leaf("else")); frames.push({ ...was, isDead: false }); continue; }
      case Op.end: {
        leave();
        const { results } = frames.pop()!;
        if (frames.length === 0) { if (r.at !== f.code.length) fail("the function ends before its bytes do"); return lines; }
        say(leaf("end"));
        for (let i = 0; i < results; i++) stack.push(POP);
        continue;
      }
      case Op.br: statement(`br ${label()}`); die(); continue;
      case Op.br_if: { const to = label(), cond = pop(); statement(`br_if ${to}${f.unlikely.has(at) ? " unlikely" : ""} `, [cond]); continue; }
      case Op.br_table: { const to = r.list(label), other = label(), by = pop(); statement("br_table ", [by], ` ${to.join(" ")} else ${other}`); die(); continue; }
      case Op.return: { const values = popAll(f.type.results); statement(values.length ? "return " : "return", values); die(); continue; }
      case Op.drop: statement("drop ", [pop()]); continue;
      case Op.call: {
        const n = r.u32(), callee = m.imports[n] ?? m.functions[n - m.imports.length]!;
        invoke(`${callee.name}(`, popAll(callee.type.params), callee.type);
        continue;
      }
      case Op.return_call: {
        const n = r.u32(), callee = m.imports[n] ?? m.functions[n - m.imports.length]!;
        statement(`return ${callee.name}(`, popAll(callee.type.params), ")");
        die();
        continue;
      }
      case Op.call_indirect: { const type = m.types[r.u32()]!; r.u32(); const to = pop(); invoke(`table[${flat(to)}](`, popAll(type.params), type); continue; }
      case Op.return_call_indirect: { const type = m.types[r.u32()]!; r.u32(); const to = pop(); statement(`return table[${flat(to)}](`, popAll(type.params), ")"); die(); continue; }
      case Op.local_get: { const i = r.u32(), name = nameOf(i); stack.push(written.has(i) ? tree(name) : leaf(name)); continue; }
      case Op.local_set: { const i = r.u32(), v = pop(); writes(i); statement(`${nameOf(i)} := `, [v]); continue; }
      case Op.local_tee: { const i = r.u32(), v = pop(); writes(i); stack.push(tree(`(${nameOf(i)} := `, [v], ")")); continue; }
      case Op.i32_const: case Op.i64_const: stack.push(leaf(number(r.leb(true)))); continue;
      case Op.v128_const: stack.push(leaf(`v128 ${hex(r.bytes(16))}`)); continue;
      case SELECT_TYPED: r.list(() => r.u8()); stack.push(tree("select(", popAll(3), ")")); continue;
      case Op.select: stack.push(tree("select(", popAll(3), ")")); continue;
      case Op.memory_copy: r.u8(); r.u8(); statement("memory.copy(", popAll(3), ")"); continue;
      case Op.memory_fill: r.u8(); statement("memory.fill(", popAll(3), ")"); continue;
      case Op.atomic_fence: r.u8(); statement("atomic.fence"); continue;
    }
    const name = OPCODES.get(op) ?? fail(`opcode 0x${op.toString(16)} is not one of ours`);
    if (isAccess(name)) {
      const align = r.u32(), offset = r.u32();
      if (/store/.test(name)) { const [address, value] = popAll(2); statement("", [access(name, address!, align, offset), tree(" := "), value!], "", ""); continue; }
      const [address, ...values] = popAll(operands(name)), at = access(name, address!, align, offset);
      stack.push(values.length ? tree("", [at, tree("(", values, ")")], "", "") : at);
      continue;
    }
    const lane = /_lane/.test(name) ? ` lane ${r.u8()}` : /shuffle$/.test(name) ? ` ${hex(r.bytes(16))}` : "";
    stack.push(tree(`${name}(`, popAll(operands(name)), `)${lane}`));
  }
  return fail("no end");
}
