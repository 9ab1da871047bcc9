/** XXH32, the checksum of records and pages: doc/xxhash_spec.md of the xxHash project. It finds damage, it proves no origin. */
import { Op } from "../wasm/opcodes.ts";
import { Code, I32, Module } from "../wasm/writer.ts";

const P1 = 0x9e3779b1 | 0, P2 = 0x85ebca77 | 0, P3 = 0xc2b2ae3d | 0, P4 = 0x27d4eb2f | 0, P5 = 0x165667b1 | 0;
/** What the four lanes begin with beyond the seed, and how far each is rotated when they are merged. */
const BEGIN = [P1 + P2 | 0, P2, 0, -P1 | 0] as const, MERGE = [1, 7, 12, 18] as const;
const avalanche = (h: number): number => {
  h = Math.imul(h ^ h >>> 15, P2);
  h = Math.imul(h ^ h >>> 13, P3);
  return (h ^ h >>> 16) >>> 0;
};

/** A wasm module's "sum": (address, bytes, seed) -> XXH32 of whole lines of 16 bytes, one at least, in the memory it imports. */
function lines(): Uint8Array<ArrayBuffer> {
  const m = new Module(), c = new Code(3), lane = [c.local(I32), c.local(I32), c.local(I32), c.local(I32)], left = c.local(I32);
  const rotl = (by: number) => c.i32(by).op(Op.i32_rotl), mul = (by: number) => c.i32(by).op(Op.i32_mul), fold = (by: number) => c.tee(left).get(left).i32(by).op(Op.i32_shr_u).op(Op.i32_xor);
  m.imports.push({ name: "memory", memory: { min: 1, max: 65536, shared: true } });
  BEGIN.forEach((add, i) => { c.get(2).i32(add).op(Op.i32_add).set(lane[i]!); });
  c.get(1).set(left);
  const next = c.loop();
  lane.forEach((l, i) => {
    c.get(l).get(0).mem(Op.i32_load, i * 4); mul(P2); c.op(Op.i32_add);
    rotl(13); mul(P1); c.set(l);
  });
  c.get(0).i32(16).op(Op.i32_add).set(0).get(left).i32(16).op(Op.i32_sub).tee(left).brIf(next).end();
  lane.forEach((l, i) => { c.get(l); rotl(MERGE[i]!); if (i > 0) c.op(Op.i32_add); });
  c.get(1).op(Op.i32_add);
  fold(15); mul(P2); fold(13); mul(P3); fold(16);
  m.funcs.push({ type: m.type([I32, I32, I32], [I32]), code: c, export: "sum" });
  return m.encode();
}
/** Of `lengthBytes` at `at` in a memory. */
export type Sum = (at: number, lengthBytes: number, seed: number) => number;
let linesModule: WebAssembly.Module | null = null;
const sums = new WeakMap<WebAssembly.Memory, Sum>();
/** The checksum of whole lines of 16 bytes, one at least, where they lie in a shared memory: the way for pages. */
export function xxh32In(memory: WebAssembly.Memory): Sum {
  const known = sums.get(memory);
  if (known) return known;
  linesModule ??= new WebAssembly.Module(lines());
  const { sum } = new WebAssembly.Instance(linesModule, { e: { memory } }).exports as { readonly sum: Sum }, of: Sum = (at, lengthBytes, seed) => sum(at, lengthBytes, seed) >>> 0;
  sums.set(memory, of);
  return of;
}
/** Of any bytes. */
export function xxh32(bytes: Uint8Array, seed = 0): number {
  const dv = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), n = bytes.length;
  let at = 0, h = seed + P5 | 0;
  if (n >= 16) {
    const lane = BEGIN.map((add) => seed + add | 0);
    for (; at + 16 <= n; at += 16) {
      for (let i = 0; i < 4; i++) {
        const x = lane[i]! + Math.imul(dv.getInt32(at + i * 4, true), P2) | 0;
        lane[i] = Math.imul(x << 13 | x >>> 19, P1);
      }
    }
    h = MERGE.reduce<number>((sum, by, i) => sum + (lane[i]! << by | lane[i]! >>> 32 - by) | 0, 0);
  }
  h = h + n | 0;
  for (; at + 4 <= n; at += 4) {
    const x = h + Math.imul(dv.getInt32(at, true), P3) | 0;
    h = Math.imul(x << 17 | x >>> 15, P4);
  }
  for (; at < n; at++) {
    const x = h + Math.imul(bytes[at]!, P5) | 0;
    h = Math.imul(x << 11 | x >>> 21, P1);
  }
  return avalanche(h);
}
