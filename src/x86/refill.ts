/**
 * The plain case of a TLB miss in generated code, without a walk and without TypeScript: where the walk's end is known for the address' region (WALKS_AT), the entry there allows the access, A (and D)
 * are set, and nobody wants to be told of anything. All else is Mmu.fill's, which makes the same of it, and remembers where its walk ended. Mmu.walk64, Mmu.enter and Tlb.enter in one.
 */
import { FRAME } from "../memory/frames.ts";
import { P2M_R, P2M_W } from "../memory/p2m.ts";
import { Op } from "../wasm/opcodes.ts";
import { type Code, I32, I64, type Ty } from "../wasm/writer.ts";
import { CONTEXT, LARGE_BITS, LARGE_BYTES, LARGE_IN_BANK, LOG, LOGS_IN_BANK, REFILLS_AT, TLB_BITS, TLB_BYTES, TLBE, WALK_BITS, WALKE, WALKS_AT, WRITERS_AT } from "./layout.ts";
import { PTE } from "./mmu.ts";
import { CPU, CR0, CR4, EFER } from "./state.ts";
import { HUGE, LARGE, LARGE_HASH } from "./tlb.ts";

/** Body of refill(linear address, write) -> 1: the tag is there; 0: nothing was done. @param cpu the pCPU's base */
export function emitRefill(c: Code, cpu: number): void {
  const ADDRESS = 0, WRITE = 1, no = c.block();
  const field = (f: { at: number }) => c.i32(cpu).mem(Op.i32_load, f.at), and = (bits: number) => c.i32(bits).op(Op.i32_and);
  const local = (ty: Ty = I32): number => c.local(ty);
  /** Is that bit set in a control register? */
  const has = (f: { at: number }, bit: number) => { field(f); return and(bit).i32(0).op(Op.i32_ne); };

  // the walk's end
  const root = local(), at = local(), region = local(), bits = local(), level = local(), pte = local(I64), lo = local();
  field(CPU.p2mRoot).tee(root).op(Op.i32_eqz).brIf(no);
  field(CPU.p2mBusy).mem(Op.i32_load, 0); field({ at: CPU.p2mBusy.at + 4 }).mem(Op.i32_load, 0).op(Op.i32_or).brIf(no);
  c.get(ADDRESS).i64(47).op(Op.i64_shr_s).i64(1).op(Op.i64_add).i64(1).op(Op.i64_gt_u).brIf(no);       // not canonical
  c.get(ADDRESS).i64(21).op(Op.i64_shr_s).op(Op.i32_wrap_i64).tee(region);
  and((1 << WALK_BITS) - 1).i32(Math.log2(WALKE.size)).op(Op.i32_shl).i32(cpu + WALKS_AT).op(Op.i32_add).tee(at);
  c.mem(Op.i32_load, WALKE.region).get(region).op(Op.i32_ne).brIf(no);
  c.get(at).mem(Op.i32_load, WALKE.epoch); field(CPU.walkEpoch).op(Op.i32_ne).brIf(no);
  c.get(at).mem(Op.i32_load, WALKE.bits).tee(bits).i32(3).op(Op.i32_shr_u); and(3).set(level);
  const page = () => c.get(ADDRESS).i64(12).op(Op.i64_shr_s).op(Op.i32_wrap_i64), isSmall = () => c.get(level).i32(1).op(Op.i32_eq);
  c.get(at).mem(Op.i32_load, WALKE.at);
  page(); and(511).i32(3).op(Op.i32_shl).i32(0); isSmall().op(Op.select).op(Op.i32_add).mem(Op.i64_load, 0).tee(pte).op(Op.i32_wrap_i64).set(lo);

  // what the entry must be: P and A; of a large page PS and no reserved bits
  c.get(lo); and(PTE.P | PTE.A).i32(PTE.P | PTE.A).op(Op.i32_ne).brIf(no);
  isSmall().op(Op.i32_eqz).if_();
  c.get(lo).i32(PTE.PS | 0x3fffe000).i32(PTE.PS | 0x1fe000).get(level).i32(3).op(Op.i32_eq).op(Op.select).op(Op.i32_and).i32(PTE.PS).op(Op.i32_ne).brIf(no).end();
  c.get(pte).i64(32).op(Op.i64_shr_u).op(Op.i32_wrap_i64); field(CPU.reservedHi).i32(0).i32(1 << 31);
  field(CPU.efer); and(EFER.NXE).op(Op.select).op(Op.i32_or).op(Op.i32_and).brIf(no);

  // may the access be made? Mmu.permitted
  const bank = local(), context = local(), canWrite = local();
  field(CPU.tlb); field(CPU.bank).tee(bank).op(Op.i32_sub).i32(TLB_BYTES).op(Op.i32_div_u).set(context);
  const agreed = (bit: number) => { c.get(bits).get(lo).op(Op.i32_and); return and(bit).i32(0).op(Op.i32_ne); };
  agreed(PTE.RW).set(canWrite);
  c.get(context).i32(CONTEXT.user).op(Op.i32_eq).if_();
  agreed(PTE.US).op(Op.i32_eqz).brIf(no);
  c.else_();
  agreed(PTE.US).get(context).i32(CONTEXT.kernel).op(Op.i32_eq).op(Op.i32_and); has(CPU.cr4, CR4.SMAP).op(Op.i32_and).brIf(no);
  c.get(canWrite); has(CPU.cr0, CR0.WP).op(Op.i32_eqz).op(Op.i32_or).set(canWrite).end();

  // the frame
  const gfn = local(), inPage = local(), frame = local();
  c.get(pte).i64(2 ** 40 - 1).i64(12).op(Op.i64_shl).op(Op.i64_and).i64(12).op(Op.i64_shr_u).tee(pte).i64(2 ** 30).op(Op.i64_ge_u).brIf(no);
  c.i32(0).i32(0x1ff).i32(0x3ffff).get(level).i32(2).op(Op.i32_eq).op(Op.select); isSmall().op(Op.select).set(inPage);
  c.get(pte).op(Op.i32_wrap_i64).get(inPage).i32(-1).op(Op.i32_xor).op(Op.i32_and); page().get(inPage).op(Op.i32_and).op(Op.i32_or).set(gfn);
  c.get(root).get(gfn).i32(20).op(Op.i32_shr_u).i32(2).op(Op.i32_shl).op(Op.i32_add).mem(Op.i32_load, 0).tee(at).op(Op.i32_eqz).brIf(no);
  c.get(at).get(gfn).i32(10).op(Op.i32_shr_u); and(1023).i32(2).op(Op.i32_shl).op(Op.i32_add).mem(Op.i32_load, 0).tee(at).op(Op.i32_eqz).brIf(no);
  c.get(at).get(gfn); and(1023).i32(2).op(Op.i32_shl).op(Op.i32_add).mem(Op.i32_load, 0).tee(at); and(P2M_R).op(Op.i32_eqz).brIf(no);
  c.get(at).i32(12).op(Op.i32_shr_u).set(frame);
  /* stores go ahead by themselves where D is set and no pCPU has decoded code from the frame */
  c.get(canWrite).get(lo).i32(Math.log2(PTE.D)).op(Op.i32_shr_u).op(Op.i32_and).get(at).i32(Math.log2(P2M_W)).op(Op.i32_shr_u).op(Op.i32_and);
  field(CPU.frameTable).get(frame).i32(Math.log2(FRAME.sizeof)).op(Op.i32_shl).op(Op.i32_add).mem(Op.i32_load, FRAME.codeCpus.at).op(Op.i32_eqz).op(Op.i32_and);
  and(1).set(canWrite);
  c.get(WRITE).get(canWrite).i32(-1).op(Op.i32_xor).op(Op.i32_and).brIf(no);

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
  c.i32(1).op(Op.return).end();
  c.i32(0);
}
