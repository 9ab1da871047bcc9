/* Who may use x87 and SSE when: CR0.EM, TS, MP, NE, CR4.OSFXSR and OSXMMEXCPT, XCR0; and that the state is saved and restored whole. SDM Vol. 1 8.1, 10.5, 13; Vol. 3A 2.5. */
#include "../common/guest.h"

static u8 area[4096] __attribute__((aligned(64))), copy[4096] __attribute__((aligned(64)));
static void x87(u64 a) { (void)a; __asm__ volatile("fld1; fstp %%st(0)" : : : "memory"); }
static void fwait(u64 a) { (void)a; __asm__ volatile("fwait"); }
static void mmx(u64 a) { (void)a; __asm__ volatile("pxor %%mm0, %%mm0; emms" : : : "memory"); }
static void sse(u64 a) { (void)a; __asm__ volatile("xorps %%xmm0, %%xmm0" : : : "memory"); }
static void unmasked_x87(u64 a) { (void)a; u16 cw = 0x37b; __asm__ volatile("fninit; fldcw %0; fld1; fldz; fdivrp; fwait; fninit" : : "m"(cw) : "memory"); }
static void unmasked_sse(u64 a) { (void)a; u32 mx = 0x1d80; __asm__ volatile("ldmxcsr %0; xorps %%xmm0, %%xmm0; pcmpeqd %%xmm1, %%xmm1; psrld $31, %%xmm1; cvtdq2ps %%xmm1, %%xmm1; divps %%xmm0, %%xmm1" : : "m"(mx) : "memory"); }
static void bad_mxcsr(u64 a) { u32 v = a; __asm__ volatile("ldmxcsr %0" : : "m"(v)); }
static void xsetbv(u64 v) { __asm__ volatile("xsetbv" : : "c"(0), "a"((u32)v), "d"((u32)(v >> 32))); }
static void fxsave_at(u64 a) { __asm__ volatile("fxsave64 (%0)" : : "r"(a) : "memory"); }
static void restore_mxcsr(void) { u32 mx = 0x1f80; __asm__ volatile("ldmxcsr %0; fninit" : : "m"(mx)); }
static void set_cr0(u64 clear, u64 set) { WRITE_CR(0, (READ_CR(0) & ~clear) | set); }
static void expect(const char *what, void (*f)(u64), u64 arg, int vector) { int got = attempt(f, arg); check(got == vector, "%s: vector %d, not %d", what, got, vector); }

void guest_main(void) {
  expect("x87", x87, 0, NO_FAULT);
  set_cr0(0, 8);
  expect("x87, TS", x87, 0, NM);
  expect("sse, TS", sse, 0, NM);
  expect("mmx, TS", mmx, 0, NM);
  expect("fwait, TS and MP", fwait, 0, NM);
  set_cr0(2, 0);
  expect("fwait, TS without MP", fwait, 0, NO_FAULT);
  __asm__ volatile("clts");
  expect("x87 after CLTS", x87, 0, NO_FAULT);
  set_cr0(0, 4);
  expect("x87, EM", x87, 0, NM);
  expect("sse, EM", sse, 0, UD);
  expect("mmx, EM", mmx, 0, UD);
  set_cr0(4, 2);
  WRITE_CR(4, READ_CR(4) & ~0x200ul);
  expect("sse without OSFXSR", sse, 0, UD);
  WRITE_CR(4, READ_CR(4) | 0x200);
  expect("sse", sse, 0, NO_FAULT);
  expect("x87 exception, NE", unmasked_x87, 0, MF);
  restore_mxcsr();
  expect("sse exception", unmasked_sse, 0, XM);
  restore_mxcsr();
  WRITE_CR(4, READ_CR(4) & ~0x400ul);
  expect("sse exception without OSXMMEXCPT", unmasked_sse, 0, UD);
  restore_mxcsr();
  WRITE_CR(4, READ_CR(4) | 0x400);
  expect("reserved MXCSR bits", bad_mxcsr, 0x10000, GP);
  expect("fxsave, misaligned", fxsave_at, (u64)area + 8, GP);

  __asm__ volatile("fninit; fldpi; fld1; pcmpeqd %%xmm3, %%xmm3; pcmpeqd %%xmm15, %%xmm15; psrlq $3, %%xmm15; fxsave64 %0; fninit; pxor %%xmm3, %%xmm3; pxor %%xmm15, %%xmm15; fxrstor64 %0; fxsave64 %1" : "+m"(area), "=m"(copy) : : "memory");
  bool same = true;
  for (int i = 0; i < 416; i++) if (area[i] != copy[i] && !(i >= 6 && i < 24)) same = false;
  check(same, "FXSAVE, FXRSTOR, FXSAVE differ");
  check(*(u64 *)(area + 160 + 48) == ~0ul && *(u64 *)(area + 160 + 240) == ~0ul >> 3 && area[4] == 0xc0, "FXSAVE image: %lx %lx tags %x", *(u64 *)(area + 208), *(u64 *)(area + 400), area[4]);

  if (!has(1, ECX, 26)) { print("no XSAVE\n"); return; }
  WRITE_CR(4, READ_CR(4) | 0x40000);
  check(has(1, ECX, 27), "CPUID does not show OSXSAVE");
  expect("XCR0 without x87", xsetbv, 2, GP);
  expect("XCR0 = x87 and SSE", xsetbv, 3, NO_FAULT);
  u32 r[4];
  cpuid(13, 0, r);
  check((r[0] & 3) == 3 && r[1] >= 576, "CPUID leaf 13: %x, %u bytes", r[0], r[1]);
  memset(area, 0, sizeof area);
  __asm__ volatile("fninit; pcmpeqd %%xmm5, %%xmm5; xsave64 %0; pxor %%xmm5, %%xmm5; xrstor64 %0; movups %%xmm5, %1" : "+m"(area), "=m"(copy) : "a"(7), "d"(0) : "memory");
  check(*(u64 *)copy == ~0ul && (*(u64 *)(area + 512) & 2), "XSAVE, XRSTOR: %lx, header %lx", *(u64 *)copy, *(u64 *)(area + 512));
  *(u64 *)(area + 512) = 0;
  __asm__ volatile("xrstor64 %1; movups %%xmm5, %0" : "=m"(copy) : "m"(area), "a"(7), "d"(0) : "memory");
  check(*(u64 *)copy == 0, "XRSTOR of a component in its initial state: %lx", *(u64 *)copy);
}
