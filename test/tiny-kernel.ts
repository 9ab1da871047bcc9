/** The smallest PVH kernel: one segment at 1 MiB, and the note that says to start there. */
export function tinyKernel(code: readonly number[] = [0xf4]): Uint8Array {
  const image = new Uint8Array(0x2000), dv = new DataView(image.buffer);
  image.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  dv.setUint16(16, 2, true); dv.setUint16(18, 62, true); dv.setUint32(20, 1, true);
  dv.setBigUint64(24, 0x100000n, true); dv.setBigUint64(32, 64n, true);
  dv.setUint16(52, 64, true); dv.setUint16(54, 56, true); dv.setUint16(56, 2, true);
  const header = (at: number, type: number, offset: number, size: number) => {
    dv.setUint32(at, type, true); dv.setUint32(at + 4, 5, true); dv.setBigUint64(at + 8, BigInt(offset), true);
    for (const p of [16, 24]) dv.setBigUint64(at + p, 0x100000n + BigInt(offset - 0x1000), true);
    for (const p of [32, 40]) dv.setBigUint64(at + p, BigInt(size), true);
  };
  header(64, 1, 0x1000, 0x1000);
  header(120, 4, 0x1800, 20);
  image.set(code, 0x1000);
  dv.setUint32(0x1800, 4, true); dv.setUint32(0x1804, 4, true); dv.setUint32(0x1808, 18, true);
  image.set([0x58, 0x65, 0x6e, 0], 0x180c);
  dv.setUint32(0x1810, 0x100000, true);
  return image;
}
