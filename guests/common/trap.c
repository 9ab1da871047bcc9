/* The IDT, the TSS, and faults that come back to the code that provoked them. */
#include "guest.h"

struct outcome outcome;
struct tss tss = { .iomap = __builtin_offsetof(struct tss, bitmap), .bitmap = { [0 ... 7] = 0xff } };
static u64 idt[512] __attribute__((aligned(16)));
static void (*handlers[256])(struct frame *);
extern u64 try_rsp;
extern u32 try_armed;
extern char try_resume[];
void try_call(void (*f)(u64), u64 arg);
void try_user(u64 cs, u64 rip, u64 rsp, u64 rflags, u64 arg);

void set_gate(int vector, u64 handler, u16 selector, int ist, u8 type_and_dpl) {
  idt[2 * vector] = (handler & 0xffff) | (u64)selector << 16 | (u64)ist << 32 | (u64)type_and_dpl << 40 | (handler >> 16 & 0xffff) << 48;
  idt[2 * vector + 1] = handler >> 32;
}
void on_interrupt(int vector, void (*handler)(struct frame *)) { handlers[vector] = handler; }

void load_idt(void) {
  for (int v = 0; v < 256; v++) set_gate(v, (u64)stubs + 16 * v, KERNEL_CS, 0, 0x8e);
  set_gate(BP, (u64)stubs + 16 * BP, KERNEL_CS, 0, 0xee);
  set_gate(OF, (u64)stubs + 16 * OF, KERNEL_CS, 0, 0xee);
  set_gate(USER_EXIT, (u64)stubs + 16 * USER_EXIT, KERNEL_CS, 0, 0xee);
  /* double faults on a stack of their own: something is wrong with the other */
  set_gate(DF, (u64)stubs + 16 * DF, KERNEL_CS, 7, 0x8e);
  struct { u16 limit; u64 base; } __attribute__((packed)) pointer = { sizeof idt - 1, (u64)idt };
  __asm__ volatile("lidt %0" : : "m"(pointer));
  tss.rsp[0] = (u64)stack_top - 8192;
  tss.ist[6] = (u64)ist_stack_top;
  tss.ist[0] = (u64)ist_stack_top - 4096;
  u64 base = (u64)&tss;
  gdt[TSS_SELECTOR / 8] = (sizeof tss - 1) | (base & 0xffffff) << 16 | 0x89ul << 40 | (base >> 24 & 0xff) << 56;
  gdt[TSS_SELECTOR / 8 + 1] = base >> 32;
  __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
}

void trap(struct frame *f) {
  if (handlers[f->vector]) { handlers[f->vector](f); return; }
  if (try_armed) {
    try_armed = 0;
    outcome.vector = f->vector;
    outcome.cr2 = READ_CR(2);
    outcome.frame = *f;
    f->rip = (u64)try_resume, f->cs = KERNEL_CS, f->ss = KERNEL_DS, f->rsp = try_rsp, f->rflags = 2;
    return;
  }
  static bool once;
  if (once) power_off();
  once = true;
  check(false, "unexpected vector %lu, error %lx, cs:rip %lx:%lx, rsp %lx, cr2 %lx", f->vector, f->error, f->cs, f->rip, f->rsp, READ_CR(2));
  finish();
}

int attempt(void (*f)(u64), u64 arg) { outcome.vector = NO_FAULT; try_call(f, arg); return outcome.vector; }
int attempt_user(u64 cs, u64 rip, u64 rsp, u64 rflags, u64 arg) { outcome.vector = NO_FAULT; try_user(cs, rip, rsp, rflags, arg); return outcome.vector; }
