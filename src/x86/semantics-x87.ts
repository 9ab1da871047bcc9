/** The x87: the text moves memory operands and flags; the arithmetic is in x87.ts behind four helpers (fp-glue.ts). SDM Vol. 1 ch. 8, Vol. 2. */
import { Op } from "../wasm/opcodes.ts";
import { type Gen, type Val, helperIndex } from "./gen.ts";
import { checkPending } from "./semantics-mmx.ts";
import type { Semantics } from "./semantics.ts";
import { CPU, CR0, EFLAGS, RAX, VECTOR } from "./state.ts";
import { x87Form, type X87Form } from "./x87-form.ts";

/** With an image's opcode: it has the 32-bit format. */
export const X87_WIDE = 0x10000;
/** The 64-bit word at CPU.wide: the data pointer, or an image's linear address. */
function setWide(g: Gen, v: Val): void { g.cpu(); g.emit(v); g.code.mem(Op.i64_store, CPU.wide.at); }
/** x87.ts takes the instruction pointer from CPU.rip. */
function setRip(g: Gen, form: X87Form): void { if (!form.control) { const rip = g.here(); g.cpu(); g.emit(rip); g.code.mem(Op.i64_store, CPU.rip.at); } }

/** D8 to DF with a register; the ModRM byte is known. */
export const x87Register = (byte: number): Semantics => g => {
  const op = byte << 8 | g.known(), form = x87Form(op);
  if (form?.kind !== "reg") return g.trap(VECTOR.UD);
  setRip(g, form);
  const r = g.let(g.help("x87Reg", form.eflags === "read" ? g.or(32, g.shl(32, g.arith(), g.k(32, 16)), g.k(32, op)) : g.k(32, op)));
  g.faultCheck();
  if (form.eflags === "write") g.setArith(g.and(32, r, g.k(32, EFLAGS.ZF | EFLAGS.PF | EFLAGS.CF)));
  if (form.ax) g.setReg(16, RAX, g.cast(32, 16, r));
};

/** D8 to DF with a memory operand. */
export const x87Memory = (byte: number): Semantics => (g, w) => {
  const op = byte << 8 | g.known(), form = x87Form(op), c = g.code;
  if (!form || form.kind === "reg") return g.trap(VECTOR.UD);
  if (form.wait) checkPending(g);
  const image = form.kind === "loadImage" || form.kind === "storeImage", size = image && w !== 16 ? form.bytes32 ?? 0 : form.bytes, writes = form.kind === "store" || form.kind === "storeImage";
  const at = g.let(g.ea(size, writes)), at8 = () => g.add(64, at, g.k(64, 8));
  if (form.name === "FNSTCW" || form.name === "FNSTSW") return g.store(16, at, g.field(16, form.name === "FNSTCW" ? CPU.fcw.at : CPU.fsw.at));
  if (image) {
    const wide = w === 16 ? op : op | X87_WIDE;
    if (writes) { setWide(g, at); c.i32(wide).call(helperIndex("x87Store")); } else g.let(g.help("x87Load", g.k(32, wide), at, g.k(32, 0)));
    g.faultCheck();
    return;
  }
  if (form.kind === "load") {
    const hi = size === 10 ? g.load(16, at8()) : g.k(32, 0), width = size === 2 ? 16 : size === 4 ? 32 : 64, lo = g.let(g.cast(width, 64, g.load(width, at)));
    setRip(g, form); setWide(g, g.offset());
    g.let(g.help("x87Load", g.k(32, op), lo, hi));
    g.faultCheck();
    return;
  }
  setRip(g, form);
  c.i32(op).call(helperIndex("x87Store")); g.faultCheck();
  g.emit(g.field(32, CPU.wide.at + 12)); c.if_();
  const lo = g.field(64, CPU.wide.at);
  if (size === 10) {                                  // two writes, as processors do it: the second may fault alone
    const hi = g.field(16, CPU.wide.at + 8);
    g.store(64, at, lo); g.store(16, at8(), hi);
  } else { const width = size === 2 ? 16 : size === 4 ? 32 : 64; g.store(width, at, g.cast(64, width, lo)); }
  c.end();
  setWide(g, g.offset());
  c.i32(op).call(helperIndex("x87StoreDone"));
};

/** FWAIT: #NM when CR0 has MP and TS, then pending exceptions. */
export const fwait: Semantics = g => {
  const both = CR0.MP | CR0.TS;
  g.trapIf(g.eq(32, g.and(32, g.field(32, CPU.cr0.at), g.k(32, both)), g.k(32, both)), VECTOR.NM);
  checkPending(g);
};
