/*
 * Random bytes executed at CPL 0, seeded by "seed=N" on the command line ("rounds=N" for how many starts). Faults are caught and the
 * next start is made elsewhere in the bytes. Any end is right but harm to the hypervisor or to a neighbour: a crash, a triple fault,
 * an endless loop that is cut by the time given, or the result line.
 */
#include "../common/guest.h"

static u64 state;
static u64 next(void) { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state; }
static void jump(u64 a) {
  __asm__ volatile("push %%rbx; push %%rbp; call *%%rax; pop %%rbp; pop %%rbx" : "+a"(a) : "b"(next()), "c"(next() & 0xffff), "d"(next()), "S"(next() & 0xffffff), "D"(next() & 0xffffff)
    : "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
}
void guest_main(void) {
  u64 seed = option("seed", 1), rounds = option("rounds", 2000), faults[32] = { 0 };
  state = seed * 0x9e3779b97f4a7c15 + 1;
  u64 *bytes = (u64 *)new_page();
  for (int i = 0; i < 7; i++) new_page();
  print("seed %lu\n", seed);
  for (u64 r = 0; r < rounds; r++) {
    for (int i = 0; i < 4096; i++) bytes[i] = next();
    int v = attempt(jump, (u64)bytes + (next() & 0x7fff));
    if (v >= 0 && v < 32) faults[v]++;
  }
  for (int v = 0; v < 32; v++) if (faults[v]) print("vector %d: %lu\n", v, faults[v]);
}
