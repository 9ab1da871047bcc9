/** The x87's environment in memory: FNSTENV, FNSAVE, FLDENV, FRSTOR in their four formats. SDM Vol. 1 figures 8-9 to 8-12. */
import { GuestFault } from "./fault.ts";
import { FLAG } from "./softfloat.ts";
import { CPU, VECTOR } from "./state.ts";
import { x87Form } from "./x87-form.ts";
import { abridge, checkPending, fcwOf, fullTags, fswOf, initialize, setControl, setTop, st, setSt, type X87Host } from "./x87-state.ts";

const save = (op: number): boolean => (op >> 8 & 7) === 5;

/**
 * FNSTENV and FNSAVE: the bytes to write; nothing has changed yet, `x87ImageStored` does that.
 * @param wide 32-bit operand size (always so in 64-bit mode with no 0x66 prefix)
 * @param prot protected or long mode; else real and virtual-8086
 */
export function x87StoreImage(h: X87Host, op: number, wide: boolean, prot: boolean): Uint8Array {
  const { dv } = h.v, word = wide ? 4 : 2, image = new Uint8Array(7 * word + (save(op) ? 80 : 0)), out = new DataView(image.buffer);
  const put = (i: number, x: number): void => { if (wide) out.setUint32(i * 4, x, true); else out.setUint16(i * 2, x, true); };
  const ip = Number(CPU.fip.get(dv, h.at) & 0xffffffffn), dp = Number(CPU.fdp.get(dv, h.at) & 0xffffffffn), fop = CPU.fop.get(dv, h.at);
  const reserved = wide ? 0xffff0000 : 0;
  put(0, fcwOf(h) + reserved);
  put(1, fswOf(h) + reserved);
  put(2, fullTags(h) + reserved);
  if (prot) {
    put(3, ip);
    put(4, CPU.fcs.get(dv, h.at) + (wide ? fop * 65536 : 0));
    put(5, dp);
    put(6, CPU.fds.get(dv, h.at) + reserved);
  } else {
    const high = (p: number): number => wide ? (p >>> 16) << 12 : (p >>> 16 & 15) << 12;
    put(3, (ip & 0xffff) + reserved);
    put(4, high(ip) | fop);
    put(5, (dp & 0xffff) + reserved);
    put(6, high(dp));
  }
  if (save(op)) for (let i = 0; i < 8; i++) {
    const bits = st(h, i);
    out.setBigUint64(7 * word + i * 10, BigInt.asUintN(64, bits), true);
    out.setUint16(7 * word + i * 10 + 8, Number(bits >> 64n), true);
  }
  return image;
}
/** The image is in memory: FNSTENV masks all exceptions, FNSAVE initializes. */
export function x87ImageStored(h: X87Host, op: number): void {
  if (save(op)) initialize(h); else setControl(h, fcwOf(h) | FLAG.all);
}

/** FLDENV and FRSTOR from the bytes read. @throws #MF when an exception is pending */
export function x87LoadImage(h: X87Host, op: number, image: Uint8Array, wide: boolean, prot: boolean): void {
  const form = x87Form(op);
  if (form?.kind !== "loadImage") throw new GuestFault(VECTOR.UD, -1);
  checkPending(h, form);
  const { dv } = h.v, word = wide ? 4 : 2, src = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const get = (i: number): number => wide ? src.getUint32(i * 4, true) : src.getUint16(i * 2, true);
  CPU.fsw.set(dv, h.at, get(1) & 0xffff);
  setControl(h, get(0) & 0xffff);
  CPU.ftw.set(dv, h.at, abridge(get(2)));
  if (prot) {
    CPU.fip.set(dv, h.at, BigInt(get(3))); CPU.fcs.set(dv, h.at, get(4) & 0xffff); CPU.fdp.set(dv, h.at, BigInt(get(5))); CPU.fds.set(dv, h.at, get(6) & 0xffff);
    CPU.fop.set(dv, h.at, wide ? get(4) >>> 16 & 0x7ff : 0);
  } else {
    const high = (x: number): bigint => BigInt(wide ? x >>> 12 & 0xffff : x >>> 12) << 16n;
    CPU.fip.set(dv, h.at, high(get(4)) | BigInt(get(3) & 0xffff)); CPU.fdp.set(dv, h.at, high(get(6)) | BigInt(get(5) & 0xffff));
    CPU.fop.set(dv, h.at, get(4) & 0x7ff); CPU.fcs.set(dv, h.at, 0); CPU.fds.set(dv, h.at, 0);
  }
  if (!save(op)) return;
  const top = fswOf(h) >> 11 & 7, tags = CPU.ftw.get(dv, h.at);
  for (let i = 0; i < 8; i++) setSt(h, i, src.getBigUint64(7 * word + i * 10, true) | BigInt(src.getUint16(7 * word + i * 10 + 8, true)) << 64n);
  CPU.ftw.set(dv, h.at, tags);
  setTop(h, top);
}
