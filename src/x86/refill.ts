/**
 * The plain case of a TLB miss in generated code, without TypeScript: in long mode, where A is set on the way and in the entry (and D), the entry allows the access, and nobody wants to be told of
 * anything. The walk begins at its end where that is known for the address' region (WALKS_AT), else at CR3. All else is Mmu.fill's, which makes the same of it. Mmu.walk64, Mmu.enter and Tlb.enter in one.
 */
import { FRAME } from "../memory/frames.ts";
import { P2M_R, P2M_W } from "../memory/p2m.ts";
import { Op } from "../wasm/opcodes.ts";
import { type Code, I32, I64, type Ty } from "../wasm/writer.ts";
import { CONTEXT, LARGE_BITS, LARGE_BYTES, LARGE_IN_BANK, LOG, LOGS_IN_BANK, REFILLS_AT, TLB_BITS, TLB_BYTES, TLBE, WALK_BITS, WALKE, WALKS_AT, WRITERS_AT } from "./layout.ts";
import { PTE } from "./mmu.ts";
import { P2M_CODE } from "./platform.ts";
import { CPU, CR0, CR4, EFER } from "./state.ts";
import { HUGE, LARGE, LARGE_HASH } from "./tlb.ts";

/** Body of refill(linear address, write) -> what RUNTIME_IMPORTS.fill says when it succeeds (0: the tag is there; 2: by hand, since the frame has code or is not to be written), or -1: nothing was done. @param cpu the pCPU's base */
export function emitRefill(c: Code, cpu: number): void {
  const ADDRESS = 0, WRITE = 1, no = c.block();
  const field = (f: { at: number }) => c.i32(cpu).mem(Op.i32_load, f.at), and = (bits: number) => c.i32(bits).op(Op.i32_and);
  const local = (ty: Ty = I32): number => c.local(ty);
  /** Is that bit set in a control register? */
  const has = (f: { at: number }, bit: number) => { field(f); return and(bit).i32(0).op(Op.i32_ne); };

  const root = local(), at = local(), region = local(), bits = local(), level = local(), pte = local(I64), lo = local(), known = local(), entryAt = local(), slot = local(), packed = local(), gfn = local();
  field(CPU.p2mRoot).tee(root).op(Op.i32_eqz).brIf(no);
  field(CPU.p2mBusy).mem(Op.i32_load, 0); field({ at: CPU.p2mBusy.at + 4 }).mem(Op.i32_load, 0).op(Op.i32_or).brIf(no);
  c.get(ADDRESS).i64(47).op(Op.i64_shr_s).i64(1).op(Op.i64_add).i64(1).op(Op.i64_gt_u).brIf(no);       // not canonical
  const isSmall = () => c.get(level).i32(1).op(Op.i32_eq);
  const hasCode = (): Code => field(CPU.frameTable).get(packed).i32(12).op(Op.i32_shr_u).i32(Math.log2(FRAME.sizeof)).op(Op.i32_shl).op(Op.i32_add).mem(Op.i32_load, FRAME.codeCpus.at).i32(0).op(Op.i32_ne);
  /** What the p2m says of `gfn`, in `packed`; no memory to read there: no. */
  const lookUp = (): void => {
    c.get(root).get(gfn).i32(20).op(Op.i32_shr_u).i32(2).op(Op.i32_shl).op(Op.i32_add).mem(Op.i32_load, 0).tee(at).op(Op.i32_eqz).brIf(no);
    c.get(at).get(gfn).i32(10).op(Op.i32_shr_u); and(1023).i32(2).op(Op.i32_shl).op(Op.i32_add).mem(Op.i32_load, 0).tee(at).op(Op.i32_eqz).brIf(no);
    c.get(at).get(gfn); and(1023).i32(2).op(Op.i32_shl).op(Op.i32_add).mem(Op.i32_load, 0).tee(packed); and(P2M_R).op(Op.i32_eqz).brIf(no);
  };
  /** The frame that an i64 on the stack names, which has 40 bits; beyond what a p2m can hold: no. */
  const setGfn = (): void => { c.i64(12).op(Op.i64_shr_u).i64(2 ** 40 - 1).op(Op.i64_and).tee(pte).i64(2 ** 30).op(Op.i64_ge_u).brIf(no).get(pte).op(Op.i32_wrap_i64).set(gfn); };

  // where the walk begins
  c.get(ADDRESS).i64(21).op(Op.i64_shr_s).op(Op.i32_wrap_i64).tee(region);
  and((1 << WALK_BITS) - 1).i32(Math.log2(WALKE.size)).op(Op.i32_shl).i32(cpu + WALKS_AT).op(Op.i32_add).tee(slot);
  c.mem(Op.i32_load, WALKE.region).get(region).op(Op.i32_eq).get(slot).mem(Op.i32_load, WALKE.epoch); field(CPU.walkEpoch).op(Op.i32_eq).op(Op.i32_and).if_();
  c.get(slot).mem(Op.i32_load, WALKE.bits).tee(bits).i32(3).op(Op.i32_shr_u); and(3).tee(level).set(known);
  c.get(slot).mem(Op.i32_load, WALKE.at).get(ADDRESS).i64(9).op(Op.i64_shr_s).op(Op.i32_wrap_i64); and(511 << 3).i32(0); isSmall().op(Op.select).op(Op.i32_add).set(entryAt);
  c.else_();
  field(CPU.efer); and(EFER.LMA).op(Op.i32_eqz).brIf(no);
  c.i32(PTE.US | PTE.RW).set(bits).i32(4).set(level);
  c.i32(cpu).mem(Op.i64_load, CPU.cr3.at); setGfn(); c.end();

  const down = c.loop(), leaf = c.block();
  c.get(level).get(known).op(Op.i32_ne).if_();
  lookUp();
  c.get(packed).i32(-4096).op(Op.i32_and).get(ADDRESS).get(level).i32(9).op(Op.i32_mul).op(Op.i64_extend_i32_u).op(Op.i64_shr_s).op(Op.i32_wrap_i64); and(511 << 3).op(Op.i32_add).set(entryAt).end();
  c.get(entryAt).mem(Op.i64_load, 0).tee(pte).op(Op.i32_wrap_i64).tee(lo); and(PTE.P | PTE.A).i32(PTE.P | PTE.A).op(Op.i32_ne).brIf(no);
  c.get(pte).i64(32).op(Op.i64_shr_u).op(Op.i32_wrap_i64); field(CPU.reservedHi).i32(0).i32(1 << 31);
  field(CPU.efer); and(EFER.NXE).op(Op.select).op(Op.i32_or).op(Op.i32_and).brIf(no);
  isSmall().brIf(leaf);
  c.get(lo); and(PTE.PS).if_();
  c.get(level).i32(4).op(Op.i32_eq).get(lo).i32(0x3fffe000).i32(0x1fe000).get(level).i32(3).op(Op.i32_eq).op(Op.select).op(Op.i32_and).op(Op.i32_or).brIf(no).br(leaf).end();
  c.get(bits).get(lo).i32(~(PTE.US | PTE.RW)).op(Op.i32_or).op(Op.i32_and).get(pte).i64(63).op(Op.i64_shr_u).op(Op.i32_wrap_i64).op(Op.i32_or).set(bits);
  c.get(level).i32(1).op(Op.i32_sub).set(level);
  c.get(pte); setGfn(); c.br(down).end().end();

  // may the access be made? Mmu.permitted
  const bank = local(), context = local(), canWrite = local(), page = () => c.get(ADDRESS).i64(12).op(Op.i64_shr_s).op(Op.i32_wrap_i64);
  field(CPU.tlb); field(CPU.bank).tee(bank).op(Op.i32_sub).i32(TLB_BYTES).op(Op.i32_div_u).set(context);
  const agreed = (bit: number) => { c.get(bits).get(lo).op(Op.i32_and); return and(bit).i32(0).op(Op.i32_ne); };
  agreed(PTE.RW).set(canWrite);
  c.get(context).i32(CONTEXT.user).op(Op.i32_eq).if_();
  agreed(PTE.US).op(Op.i32_eqz).brIf(no);
  c.else_();
  agreed(PTE.US).get(context).i32(CONTEXT.kernel).op(Op.i32_eq).op(Op.i32_and); has(CPU.cr4, CR4.SMAP).op(Op.i32_and).brIf(no);
  c.get(canWrite); has(CPU.cr0, CR0.WP).op(Op.i32_eqz).op(Op.i32_or).set(canWrite).end();
  c.get(WRITE).get(canWrite).i32(-1).op(Op.i32_xor).op(Op.i32_and).brIf(no);

  // where it ended, for the next
  c.get(level).get(known).op(Op.i32_ne).if_();
  c.get(slot).get(region).mem(Op.i32_store, WALKE.region); c.get(slot); field(CPU.walkEpoch).mem(Op.i32_store, WALKE.epoch);
  c.get(slot).get(entryAt).i32(~(511 << 3)).i32(-1); isSmall().op(Op.select).op(Op.i32_and).mem(Op.i32_store, WALKE.at);
  c.get(slot).get(bits); and(PTE.US | PTE.RW | 1).get(level).i32(3).op(Op.i32_shl).op(Op.i32_or);
  c.get(packed); and(P2M_R | P2M_W); hasCode().i32(Math.log2(P2M_CODE)).op(Op.i32_shl).op(Op.i32_or).i32(8).op(Op.i32_shl).op(Op.i32_or).mem(Op.i32_store, WALKE.bits).end();

  // the frame
  const inPage = local(), frame = local();
  c.get(pte); setGfn();
  c.i32(0).i32(0x1ff).i32(0x3ffff).get(level).i32(2).op(Op.i32_eq).op(Op.select); isSmall().op(Op.select).set(inPage);
  c.get(gfn).get(inPage).i32(-1).op(Op.i32_xor).op(Op.i32_and); page().get(inPage).op(Op.i32_and).op(Op.i32_or).set(gfn);
  lookUp();
  c.get(packed).i32(12).op(Op.i32_shr_u).set(frame);
  /* stores go ahead by themselves where D is set and no pCPU has decoded code from the frame */
  c.get(WRITE).get(lo); and(PTE.D).op(Op.i32_eqz).op(Op.i32_and).brIf(no);
  c.get(canWrite).get(lo).i32(Math.log2(PTE.D)).op(Op.i32_shr_u).op(Op.i32_and).get(packed).i32(Math.log2(P2M_W)).op(Op.i32_shr_u).op(Op.i32_and);
  hasCode().op(Op.i32_eqz).op(Op.i32_and);
  and(1).set(canWrite);

  // the entry
  const index = local(), e = local(), none = local(I64), flags = local(), n = local();
  page(); and((1 << TLB_BITS) - 1).tee(index).i32(Math.log2(TLBE.size)).op(Op.i32_shl); field(CPU.tlb).op(Op.i32_add).set(e);
  c.get(index).i32(1).op(Op.i32_xor).i32(12).op(Op.i32_shl).op(Op.i64_extend_i32_u).set(none);
  const writers = () => c.i32(1).op(Op.i32_shl).i32(cpu + WRITERS_AT).op(Op.i32_add), change = (by: number) => { writers().tee(n).get(n).mem(Op.i32_load16_u, 0).i32(by).op(Op.i32_add).mem(Op.i32_store16, 0); };
  c.get(e).mem(Op.i64_load, TLBE.write).get(none).op(Op.i64_ne).if_();
  field(CPU.isShared).brIf(no);        // whoever goes may have written to what is code elsewhere now
  c.get(e).mem(Op.i32_load, TLBE.frame); change(-1); c.end();
  c.get(canWrite).if_(); c.get(frame); change(1); c.end();
  const linear = local(I64);
  c.get(e).get(ADDRESS).i64(-4096).op(Op.i64_and).tee(linear).mem(Op.i64_store, TLBE.read);
  c.get(e).get(linear).get(none).get(canWrite).op(Op.select).mem(Op.i64_store, TLBE.write);
  c.get(e).get(frame).i32(12).op(Op.i32_shl).get(linear).op(Op.i32_wrap_i64).op(Op.i32_sub).mem(Op.i32_store, TLBE.add);
  c.get(e).get(frame).mem(Op.i32_store, TLBE.frame);
  c.get(lo).i32(Math.log2(PTE.G)).op(Op.i32_shr_u); field(CPU.cr4).i32(Math.log2(CR4.PGE)).op(Op.i32_shr_u).op(Op.i32_and); and(TLBE.global).set(n);
  c.get(e).get(n).i32(0).i32(LARGE).i32(HUGE).get(level).i32(2).op(Op.i32_eq).op(Op.select); isSmall().op(Op.select).tee(flags).op(Op.i32_or).mem(Op.i32_store, TLBE.flags);

  // what a flush and INVLPG go by
  c.get(flags).if_();
  c.get(ADDRESS).i64(30).op(Op.i64_shr_s).op(Op.i32_wrap_i64).i32(1).op(Op.i32_shl).i32(1).op(Op.i32_or).get(ADDRESS).i64(22).op(Op.i64_shr_s).op(Op.i32_wrap_i64).i32(1).op(Op.i32_shl);
  c.get(flags).i32(HUGE).op(Op.i32_eq).op(Op.select).i32(LARGE_HASH | 0).op(Op.i32_mul).i32(32 - LARGE_BITS).op(Op.i32_shr_u).tee(region).i32(5).op(Op.i32_shr_u).i32(2).op(Op.i32_shl);
  c.get(n).i32(LARGE_BYTES).op(Op.i32_mul).op(Op.i32_add).get(bank).op(Op.i32_add).tee(at).get(at).mem(Op.i32_load, LARGE_IN_BANK).i32(1).get(region).op(Op.i32_shl).op(Op.i32_or).mem(Op.i32_store, LARGE_IN_BANK).end();
  c.get(context).i32(1).op(Op.i32_shl).get(n).op(Op.i32_or).i32(LOG.size).op(Op.i32_mul).get(bank).op(Op.i32_add).i32(LOGS_IN_BANK).op(Op.i32_add).tee(at).get(index).op(Op.i32_add).mem(Op.i32_load8_u, LOG.logged).op(Op.i32_eqz).if_();
  c.get(at).get(index).op(Op.i32_add).i32(1).mem(Op.i32_store8, LOG.logged);
  c.get(at).get(at).mem(Op.i32_load, LOG.nr).tee(n).i32(1).op(Op.i32_shl).op(Op.i32_add).get(index).mem(Op.i32_store16, LOG.entries);
  c.get(at).get(n).i32(1).op(Op.i32_add).mem(Op.i32_store, LOG.nr).end();
  c.i32(cpu + REFILLS_AT).i32(cpu + REFILLS_AT).mem(Op.i32_load, 0).i32(1).op(Op.i32_add).mem(Op.i32_store, 0);
  c.get(WRITE).get(canWrite).i32(-1).op(Op.i32_xor).op(Op.i32_and).i32(1).op(Op.i32_shl).op(Op.return).end();
  c.i32(-1);
}
