/** Modules of one kind in one: an engine spends more on a module, and on each instance of it, than on the functions in it. */
import { Op } from "./opcodes.ts";
import { Reader } from "./reader.ts";
import { Code, Module } from "./writer.ts";

const SECTION = { custom: 0, import: 2, function: 3, export: 7, element: 9, code: 10 } as const;

/** A function's body from elsewhere, its locals with it. */
class Body extends Code { override locals(): void {} }
type Parts = { head: Uint8Array; types: number[]; /** index of its first own function */ base: number; /** the global that says where in the table they lie */ from: number; bodies: Body[] };

/** What Module.encode has made with `elemsFrom`; null where the bytes are something else. */
function partsOf(wasm: Uint8Array): Parts | null {
  if (wasm.length < 8 || new DataView(wasm.buffer, wasm.byteOffset).getUint32(0, true) !== 0x6d736100) return null;
  const r = new Reader(wasm, 8), p: Parts = { head: wasm, types: [], base: -1, from: -1, bodies: [] }, hints: [func: number, [number, number][]][] = [];
  while (!r.isAtEnd) {
    const id = r.u8(), size = r.u32(), s = new Reader(r.take(size));
    switch (id) {
      case SECTION.import: p.head = wasm.subarray(8, r.at); break;
      case SECTION.function: for (let n = s.u32(); n > 0; n--) p.types.push(s.u32()); break;
      case SECTION.export: if (s.u32() !== 0) return null; break;
      case SECTION.element: {
        if (s.u32() !== 1 || s.u8() !== 0 || s.u8() !== Op.global_get) return null;
        p.from = s.u32();
        if (s.u8() !== Op.end || s.u32() !== p.types.length) return null;
        p.base = s.u32();
        break;
      }
      case SECTION.custom: {
        s.take(s.u32());
        for (let n = s.u32(); n > 0; n--) {
          const func = s.u32(), list: [number, number][] = [];
          for (let k = s.u32(); k > 0; k--) { const at = s.u32(); s.u8(); list.push([at, s.u8()]); }
          hints.push([func, list]);
        }
        break;
      }
      case SECTION.code: for (let n = s.u32(); n > 0; n--) {
        const body = new Body(0);
        body.bytes(s.take(s.u32() - 1));
        s.u8();       // its end, which is written again
        p.bodies.push(body);
      }
    }
  }
  if (p.from < 0 || p.bodies.length !== p.types.length) return null;
  for (const [func, list] of hints) p.bodies[func - p.base]!.hints = list;
  return p;
}
/** One module with the functions of all, in order; null where they are not what Module.encode makes of modules that are alike, with all functions in the table. */
export function mergeModules(modules: readonly Uint8Array[]): Uint8Array<ArrayBuffer> | null {
  const all: Parts[] = [];
  for (const wasm of modules) {
    let p: Parts | null = null;
    try { p = partsOf(wasm); } catch (e) { if (!(e instanceof RangeError)) throw e; }
    const first = all[0] ?? p;
    if (!p || !first || p.base !== first.base || p.from !== first.from || !isSame(p.head, first.head)) return null;
    all.push(p);
  }
  const [first] = all;
  if (!first) return null;
  const m = Module.withHead(first.head, first.base);
  m.elemsFrom = first.from;
  for (const p of all) p.bodies.forEach((code, n) => { m.funcs.push({ type: p.types[n]!, code }); });
  return m.encode();
}
const isSame = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((x, i) => x === b[i]);
