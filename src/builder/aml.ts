/**
 * As much of an AML assembler as a PVH guest's DSDT needs.
 * @see ACPI specification 6.5, section 20.2
 */
const OP = { zero: 0x00, one: 0x01, byte: 0x0a, word: 0x0b, dword: 0x0c, string: 0x0d, name: 0x08, scope: 0x10, ext: 0x5b, device: 0x82 } as const;
/** A piece of assembled AML. */
export type Aml = readonly number[];

/** 20.2.4: a package's length counts its own bytes. */
function packageLength(n: number): Aml {
  if (n + 1 < 1 << 6) return [n + 1];
  const extra = n + 2 < 1 << 12 ? 1 : n + 3 < 1 << 20 ? 2 : 3, all = n + 1 + extra;
  return [extra << 6 | all & 15, ...Array.from({ length: extra }, (_, i) => all >> 4 + 8 * i & 255)];
}
const ascii = (text: string): Aml => Array.from(text, (c) => c.charCodeAt(0));
const seg = (name: string): Aml => ascii(name.padEnd(4, "_"));

/** 20.2.3, in the shortest form. */
export const integer = (n: number): Aml =>
  n === 0 ? [OP.zero] : n === 1 ? [OP.one] : n < 0x100 ? [OP.byte, n] : n < 0x10000 ? [OP.word, n & 255, n >> 8] : [OP.dword, n & 255, n >> 8 & 255, n >> 16 & 255, n >>> 24];
/** 20.2.3: ASCII and a zero byte. */
export const string = (text: string): Aml => [OP.string, ...ascii(text), 0];
/** 20.2.5.1 DefName. */
export const name = (path: string, value: Aml): Aml => [OP.name, ...seg(path), ...value];
/** 20.2.5.2 DefDevice. */
export const device = (path: string, ...body: Aml[]): Aml => {
  const inner = [...seg(path), ...body.flat()];
  return [OP.ext, OP.device, ...packageLength(inner.length), ...inner];
};
/** A scope below the root, such as `_SB`. */
export const scope = (path: string, ...body: Aml[]): Aml => {
  const inner = [0x5c, ...seg(path), ...body.flat()];
  return [OP.scope, ...packageLength(inner.length), ...inner];
};
