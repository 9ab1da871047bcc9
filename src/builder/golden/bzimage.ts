/** Makes small bzImages for tests. */

const join = (...parts: Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]));
/** Packed data as Linux's build leaves them: the size of the result behind them. */
export const withSize = (packed: Uint8Array, size: number): Uint8Array => join(packed, new Uint8Array(Uint32Array.of(size).buffer));
/** A bzImage around a payload: two setup sectors, then the payload 64 bytes into the rest. */
export function bzImage(payload: Uint8Array, version = 0x20f): Uint8Array {
  const b = new Uint8Array(3 * 512 + 64 + payload.length + 100), view = new DataView(b.buffer);
  view.setUint8(0x1f1, 2);
  view.setUint16(0x1fe, 0xaa55, true);
  b.set(new TextEncoder().encode("HdrS"), 0x202);
  view.setUint16(0x206, version, true);
  view.setUint16(0x20e, 0x100, true);
  b.set(new TextEncoder().encode("6.1 test\0"), 0x300);
  view.setUint32(0x248, 64, true);
  view.setUint32(0x24c, payload.length, true);
  b.set(payload, 3 * 512 + 64);
  return b;
}
/** LZ4's legacy frame around bytes, as literals. */
export function lz4(bytes: Uint8Array): Uint8Array {
  const more = bytes.length - 15, block = join(Uint8Array.of(0xf0), new Uint8Array(Math.floor(more / 255)).fill(255), Uint8Array.of(more % 255), bytes);
  return join(new Uint8Array(Uint32Array.of(0x184c2102, block.length).buffer), block);
}
