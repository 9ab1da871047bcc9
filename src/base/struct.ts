/**
 * Binary layouts as tables: a struct is declared once, with its C offsets and its ABI size, and checked when the module loads.
 * Accessors work on a DataView at a byte address. Words that both sides of a ring write are touched by `Atomics` instead: take
 * the field's offset (`field.at`) and index an Int32Array.
 */
export type Field<T> = {
  /** Byte offset in the struct. */
  readonly at: number;
  /** Size in bytes. */
  readonly size: number;
  get(view: DataView, base: number): T;
  set(view: DataView, base: number, value: T): void;
};
export type Bytes = { readonly at: number; readonly size: number };

const field = <T>(at: number, size: number, get: (v: DataView, p: number) => T, set: (v: DataView, p: number, x: T) => void): Field<T> => ({
  at, size, get: (v, base) => get(v, base + at), set: (v, base, x) => set(v, base + at, x),
});
export const u8 = (at: number): Field<number> => field(at, 1, (v, p) => v.getUint8(p), (v, p, x) => v.setUint8(p, x));
export const u16 = (at: number): Field<number> => field(at, 2, (v, p) => v.getUint16(p, true), (v, p, x) => v.setUint16(p, x, true));
export const u32 = (at: number): Field<number> => field(at, 4, (v, p) => v.getUint32(p, true), (v, p, x) => v.setUint32(p, x, true));
export const i32 = (at: number): Field<number> => field(at, 4, (v, p) => v.getInt32(p, true), (v, p, x) => v.setInt32(p, x, true));
export const u64 = (at: number): Field<bigint> => field(at, 8, (v, p) => v.getBigUint64(p, true), (v, p, x) => v.setBigUint64(p, BigInt.asUintN(64, x), true));
export const i64 = (at: number): Field<bigint> => field(at, 8, (v, p) => v.getBigInt64(p, true), (v, p, x) => v.setBigInt64(p, BigInt.asIntN(64, x), true));
export const f64 = (at: number): Field<number> => field(at, 8, (v, p) => v.getFloat64(p, true), (v, p, x) => v.setFloat64(p, x, true));
/** A stretch of bytes, or an embedded struct or array, that is reached by address. */
export const bytes = (at: number, size: number): Bytes => ({ at, size });

export type Struct<F extends Record<string, Bytes>> = F & { readonly sizeof: number };

/**
 * Declare a struct.
 * @param sizeof its ABI size in bytes
 * @throws when two fields overlap or one reaches past the end; a C union is declared with its members in separate structs
 */
export function struct<const F extends Record<string, Bytes>>(sizeof: number, fields: F): Struct<F> {
  const used = new Uint8Array(sizeof);
  for (const [name, f] of Object.entries(fields)) {
    if (f.at < 0 || f.at + f.size > sizeof) throw new Error(`Field "${name}" reaches past the struct's ${sizeof} bytes`);
    for (let i = f.at; i < f.at + f.size; i++) {
      if (used[i]) throw new Error(`Field "${name}" overlaps another at byte ${i}`);
      used[i] = 1;
    }
  }
  return { ...fields, sizeof };
}

/** Offsets and sizes of a struct's fields, for comparison with what the C compiler says. */
export const offsetsOf = (s: Struct<Record<string, Bytes>>): Record<string, [at: number, size: number]> =>
  Object.fromEntries(Object.entries(s).flatMap(([name, f]) => (typeof f === "object" ? [[name, [f.at, f.size]]] : [])));
