/* Debug registers, single step, and what they report in DR6. SDM Vol. 3B ch. 17. */
#include "../common/guest.h"

static volatile u64 hits, last_dr6, last_rip;
static u64 cell[2];
static void on_debug(struct frame *f) {
  hits++;
  last_dr6 = READ_DR(6);
  last_rip = f->rip;
  WRITE_DR(6, 0xffff0ff0);
  f->rflags &= ~0x100ul;
  f->rflags |= 0x10000;
}
#define BREAK(n, address, kind, size) do { WRITE_DR(0, address); hits = last_dr6 = 0; WRITE_DR(7, 0x400 | 1 << (2 * n) | (u64)(kind | (size - 1) << 2) << 16); } while (0)
void target(void);
extern char debug_target[];
__asm__("target: nop\ndebug_target: nop\n ret\n");
static void expect(const char *what, int got, int want) { check(got == want, "%s: vector %d, not %d", what, got, want); }
static void read_dr4(u64 a) { (void)a; __asm__ volatile("mov %%db4, %%rax" : : : "rax"); }
static void write_dr7(u64 v) { WRITE_DR(7, v); }
static void set_cr4_de(u64 v) { WRITE_CR(4, v ? READ_CR(4) | 8 : READ_CR(4) & ~8ul); }

void guest_main(void) {
  on_interrupt(DB, on_debug);
  print("single step\n");
  u64 after;
  __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; 1: lea 1b(%%rip), %0" : "=r"(after) : : "memory", "cc");
  check(hits == 1 && (last_dr6 & 0x4000) && last_rip == after, "TF: %lu traps, dr6 %lx, rip %lx, not %lx", hits, last_dr6, last_rip, after);

  print("execution breakpoint\n");
  BREAK(0, (u64)debug_target, 0, 1);
  target();
  check(hits == 1 && (last_dr6 & 15) == 1 && last_rip == (u64)debug_target, "%lu traps, dr6 %lx, rip %lx", hits, last_dr6, last_rip);
  target();
  check(hits == 2, "the second time: %lu traps", hits);
  WRITE_DR(7, 0x400);
  target();
  check(hits == 2, "disabled: %lu traps", hits);

  print("data breakpoints\n");
  BREAK(0, (u64)&cell[0], 1, 4);
  *(volatile u32 *)&cell[0] = 1;
  check(hits == 1 && (last_dr6 & 15) == 1, "write: %lu traps, dr6 %lx", hits, last_dr6);
  (void)*(volatile u32 *)&cell[0];
  check(hits == 1, "read of a write breakpoint: %lu traps", hits);
  *(volatile u8 *)((u64)&cell[0] + 3) = 1;
  check(hits == 2, "write of its last byte: %lu traps", hits);
  *(volatile u8 *)((u64)&cell[0] + 4) = 1;
  check(hits == 2, "write beside it: %lu traps", hits);
  BREAK(0, (u64)&cell[0], 3, 4);
  (void)*(volatile u32 *)&cell[0];
  check(hits == 1, "read of a read-write breakpoint: %lu traps", hits);
  WRITE_DR(7, 0x400);

  print("registers\n");
  check(READ_DR(7) == 0x400, "dr7 %lx", READ_DR(7));
  WRITE_DR(6, 0);
  check((READ_DR(6) & 0xffff0ff0) == 0xffff0ff0, "dr6 keeps its ones: %lx", READ_DR(6));
  expect("dr4 without CR4.DE", attempt(read_dr4, 0), NO_FAULT);
  set_cr4_de(1);
  expect("dr4 with CR4.DE", attempt(read_dr4, 0), UD);
  set_cr4_de(0);
  expect("dr7 bit 32", attempt(write_dr7, 1ul << 32), GP);
  on_interrupt(DB, NULL);
  WRITE_DR(7, 0x400 | 1 << 13);
  expect("DR7.GD", attempt(read_dr4, 0), DB);
  check(READ_DR(6) & 0x2000, "dr6 after DR7.GD: %lx", READ_DR(6));
  check(!(READ_DR(7) & 0x2000), "DR7.GD stays set");
}
