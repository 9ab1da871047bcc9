/*
 * Random bytes executed at CPL 0, seeded by "seed=N" on the command line ("rounds=N" for how many starts). Faults are caught and the
 * next start is made elsewhere in the bytes; a timer ends loops while interrupts are on. Any end is right but harm to the hypervisor or to a neighbour: a crash, a triple fault,
 * an endless loop that is cut by the time given, or the result line.
 */
#include "../common/guest.h"

static u64 state;
static u64 next(void) { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state; }
static void jump(u64 a) {
  __asm__ volatile("push %%rbx; push %%rbp; sti; call *%%rax; pop %%rbp; pop %%rbx" : "+a"(a) : "b"(next()), "c"(next() & 0xffff), "d"(next()), "S"(next() & 0xffffff), "D"(next() & 0xffffff)
    : "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
}
void guest_main(void) {
  u64 seed = option("seed", 1), rounds = option("rounds", 500), faults[256] = { 0 };
  state = seed * 0x9e3779b97f4a7c15 + 1;
  u64 *bytes = (u64 *)new_page();
  for (int i = 0; i < 7; i++) new_page();
  print("seed %lu\n", seed);
  volatile u32 *apic = (u32 *)(rdmsr(0x1b) & 0xffffff000);
  apic[0xf0 / 4] = 0x1ff, apic[0x3e0 / 4] = 0xb;
  for (u64 r = 0; r < rounds; r++) {
    for (int i = 0; i < 4096; i++) bytes[i] = next();
    apic[0x320 / 4] = 0x70, apic[0x380 / 4] = 2000000;
    int v = attempt(jump, (u64)bytes + (next() & 0x7fff));
    cli();
    if (v >= 0) faults[v]++;
    if (v == 0x70) apic[0xb0 / 4] = 0;
  }
  for (int v = 0; v < 256; v++) if (faults[v]) print("vector %d: %lu\n", v, faults[v]);
}
