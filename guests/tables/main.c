/*
 * IDT, TSS and IST: which stack an exception lands on, what the frame holds, and how a broken table is told.
 * SDM Vol. 3A ch. 6 (6.14: 64-bit mode) and 7.
 */
#include "../common/guest.h"

static u64 seen_rsp, seen_frame_rsp, seen_ss, seen_error;
static void note(struct frame *f) { seen_rsp = (u64)f; seen_frame_rsp = f->rsp; seen_ss = f->ss; seen_error = f->error; }

static void int3(u64 a) { (void)a; __asm__ volatile("int3"); }
static void soft(u64 a) { (void)a; __asm__ volatile("int $0x50"); }
static void ud2(u64 a) { (void)a; __asm__ volatile("ud2"); }
static void divide(u64 a) { __asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; div %0" : : "r"((u32)a) : "rax", "rdx"); }
static void load_ds(u64 a) { __asm__ volatile("mov %w0, %%ds" : : "r"(a)); }
static void load_ss(u64 a) { __asm__ volatile("mov %w0, %%ss" : : "r"(a)); }
static void far_jump(u64 a) { struct { u32 offset; u16 selector; } p = { 0x1000, a }; __asm__ volatile("ljmp *%0" : : "m"(p)); }
static void load_tr(u64 a) { __asm__ volatile("ltr %w0" : : "r"(a)); }
static void bad_iret(u64 a) { __asm__ volatile("mov %%rsp, %%rax; pushq %1; push %%rax; pushfq; pushq %0; lea 1f(%%rip), %%rax; push %%rax; iretq; 1:" : : "r"(a), "i"(KERNEL_DS) : "rax", "memory"); }
static void expect(const char *what, void (*f)(u64), u64 arg, int vector, u64 error) {
  int got = attempt(f, arg);
  check(got == vector, "%s: vector %d, not %d", what, got, vector);
  if (got == vector && got != NO_FAULT) check(outcome.frame.error == error, "%s: error code %lx, not %lx", what, outcome.frame.error, error);
}

/* user code on identity-mapped low memory is supervisor's; so put it in the region */
static void user_page(const u8 *code, u64 n) {
  static u64 page, stack;
  if (!page) page = new_page(), stack = new_page(), map_page(REGION, page, PTE_P | PTE_U), map_page(REGION + 4096, stack, PTE_P | PTE_U | PTE_W);
  memcpy((void *)page, code, n);
}

void guest_main(void) {
  print("frames\n");
  on_interrupt(0x50, note);
  u64 rsp;
  __asm__ volatile("mov %%rsp, %0; int $0x50" : "=r"(rsp) : : "memory");
  check(seen_frame_rsp == rsp && seen_ss == KERNEL_DS, "frame says rsp %lx ss %lx, was %lx", seen_frame_rsp, seen_ss, rsp);
  __asm__ volatile("mov %%rsp, %%rbx; sub $24, %%rsp; and $-16, %%rsp; sub $8, %%rsp; mov %%rsp, %0; int $0x50; mov %%rbx, %%rsp" : "=r"(rsp) : : "rbx", "memory");
  check(seen_frame_rsp == rsp, "frame from a misaligned stack says rsp %lx, was %lx", seen_frame_rsp, rsp);
  check((seen_rsp + sizeof(struct frame)) % 16 == 0, "the frame was pushed on an unaligned stack: %lx", seen_rsp);
  on_interrupt(0x50, NULL);
  expect("int3", int3, 0, BP, 0);
  expect("ud2", ud2, 0, UD, 0);
  expect("division by zero", divide, 0, DE, 0);
  expect("division by one", divide, 1, NO_FAULT, 0);
  expect("int 0x50", soft, 0, 0x50, 0);

  print("IST\n");
  set_gate(0x50, (u64)stubs + 16 * 0x50, KERNEL_CS, 1, 0x8e);
  on_interrupt(0x50, note);
  soft(0);
  check(seen_rsp < (u64)ist_stack_top - 4096 && seen_rsp >= (u64)ist_stack_top - 8192, "IST 1: frame at %lx", seen_rsp);
  on_interrupt(0x50, NULL);
  set_gate(0x50, (u64)stubs + 16 * 0x50, KERNEL_CS, 0, 0x8e);
  __asm__ volatile("sti");
  on_interrupt(0x51, note);
  __asm__ volatile("int $0x51");
  u64 flags;
  set_gate(0x51, (u64)stubs + 16 * 0x51, KERNEL_CS, 0, 0x8f);    /* a trap gate leaves IF */
  on_interrupt(0x51, NULL);
  int got = attempt((void (*)(u64))ud2, 0);
  check(got == UD, "ud2 with interrupts on: %d", got);
  __asm__ volatile("pushfq; pop %0; cli" : "=r"(flags));

  print("broken gates\n");
  set_gate(0x50, (u64)stubs + 16 * 0x50, KERNEL_CS, 0, 0x0e);
  expect("gate not present", soft, 0, NP, 0x50 * 8 + 2);
  set_gate(0x50, (u64)stubs + 16 * 0x50, 0, 0, 0x8e);
  expect("gate with null selector", soft, 0, GP, 0);
  set_gate(0x50, (u64)stubs + 16 * 0x50, KERNEL_DS, 0, 0x8e);
  expect("gate to a data segment", soft, 0, GP, KERNEL_DS);
  set_gate(0x50, (u64)stubs + 16 * 0x50, CODE32, 0, 0x8e);
  expect("gate to a 32-bit segment", soft, 0, GP, CODE32);
  set_gate(0x50, (u64)stubs + 16 * 0x50, 0x400, 0, 0x8e);
  expect("gate beyond the GDT", soft, 0, GP, 0x400);
  set_gate(0x50, (u64)stubs + 16 * 0x50, KERNEL_CS, 0, 0x85);
  expect("task gate", soft, 0, GP, 0x50 * 8 + 2);
  set_gate(0x50, 0x800000000000, KERNEL_CS, 0, 0x8e);
  expect("gate to a non-canonical address", soft, 0, GP, 0);
  set_gate(0x50, (u64)stubs + 16 * 0x50, KERNEL_CS, 0, 0x8e);

  print("double fault\n");
  set_gate(UD, (u64)stubs + 16 * UD, KERNEL_CS, 0, 0x0e);
  set_gate(NP, (u64)stubs + 16 * NP, KERNEL_CS, 0, 0x0e);
  expect("ud2 with #UD and #NP gone", ud2, 0, DF, 0);
  set_gate(NP, (u64)stubs + 16 * NP, KERNEL_CS, 0, 0x8e);
  expect("ud2 with #UD gone", ud2, 0, NP, UD * 8 + 3);         /* EXT: while an exception was delivered */
  set_gate(UD, (u64)stubs + 16 * UD, KERNEL_CS, 0, 0x8e);
  /* a page fault whose stack is missing */
  u64 rsp0 = tss.rsp[0];
  static const u8 user_fault[] = { 0x8a, 0x07, 0xcd, 0x80 };
  user_page(user_fault, sizeof user_fault);
  tss.rsp[0] = 0x10000000000;
  got = attempt_user(USER_CS, REGION, REGION + 8192, 0x202, 0x1234567890);
  check(got == DF, "page fault on a missing rsp0: vector %d", got);
  tss.rsp[0] = rsp0;

  print("from user mode\n");
  got = attempt_user(USER_CS, REGION, REGION + 8192, 0x202, REGION);
  check(got == USER_EXIT && outcome.frame.ss == USER_DS && outcome.frame.rsp == REGION + 8192 && outcome.frame.cs == USER_CS, "int 0x80: vector %d ss %lx rsp %lx", got, outcome.frame.ss, outcome.frame.rsp);
  static const u8 user_int[] = { 0xcd, 0x51, 0xcd, 0x80 };
  user_page(user_int, sizeof user_int);
  got = attempt_user(USER_CS, REGION, REGION + 8192, 0x202, 0);
  check(got == GP && outcome.frame.error == 0x51 * 8 + 2, "int 0x51 with DPL 0: vector %d error %lx", got, outcome.frame.error);
  static const u8 privileged[][4] = { { 0xf4 }, { 0xfa }, { 0x0f, 0x06 }, { 0x0f, 0x20, 0xc0 }, { 0x0f, 0x30 }, { 0xe4, 0x80 }, { 0x0f, 0x01, 0x3f } };
  for (u32 i = 0; i < sizeof privileged / 4; i++) {
    user_page(privileged[i], 4);
    got = attempt_user(USER_CS, REGION, REGION + 8192, 0x202, REGION);
    check(got == GP && outcome.frame.error == 0, "privileged instruction %x %x: vector %d", privileged[i][0], privileged[i][1], got);
  }

  print("selectors\n");
  expect("ds = null", load_ds, 0, NO_FAULT, 0);
  expect("ds beyond the GDT", load_ds, 0x1000, GP, 0x1000);
  expect("ds = TSS", load_ds, TSS_SELECTOR, GP, TSS_SELECTOR);
  gdt[SPARE_SELECTOR / 8] = 0x00cf13000000ffff;                      /* data, not present */
  expect("ds not present", load_ds, SPARE_SELECTOR, NP, SPARE_SELECTOR);
  expect("ss not present", load_ss, SPARE_SELECTOR, SS, SPARE_SELECTOR);
  expect("ss with RPL 3", load_ss, KERNEL_DS + 3, GP, KERNEL_DS);
  expect("ss = code", load_ss, KERNEL_CS, GP, KERNEL_CS);
  expect("ds = kernel data", load_ds, KERNEL_DS, NO_FAULT, 0);
  expect("jump to the TSS: no task switch in long mode", far_jump, TSS_SELECTOR, GP, TSS_SELECTOR);
  expect("ltr of a busy TSS", load_tr, TSS_SELECTOR, GP, TSS_SELECTOR);
  expect("ltr of null", load_tr, 0, GP, 0);
  expect("iret to a data segment", bad_iret, KERNEL_DS, GP, KERNEL_DS);
  expect("iret to this segment", bad_iret, KERNEL_CS, NO_FAULT, 0);
}
