/*
 * Work for schedulers to divide; bench/sched.ts reads what it did from its memory. role=0: all processors (cpus=N) count; role=1: sleeps for some ms and notes how late it woke;
 * role=2: each period=US works for work=US of its own running time, and notes when that was to begin and when it was done.
 * COUNTERS: a u64 each processor. LOG: the number of entries (u64), then pairs of u64: when it should have been, when it was, in ns of system time.
 */
#include "../common/smp.h"
#define COUNTERS ((volatile u64 *)0x9000)
#define LOG ((volatile u64 *)0x10000)
#define MOST_ENTRIES 32000

static void note(u64 wanted, u64 was) {
  u64 n = LOG[0];
  if (n >= MOST_ENTRIES) return;
  LOG[2 + 2 * n] = wanted, LOG[3 + 2 * n] = was;
  LOG[0] = n + 1;
}
static void count(u32 cpu) { for (;;) { for (u32 i = 0; i < 1000; i++) __asm__ volatile(""); COUNTERS[cpu]++; } }
static void sleep_until(u64 ns) {
  struct { u64 ports; u32 nr_ports, pad; u64 timeout; } poll = { 0, 0, 0, ns };        /* struct sched_poll; the time-stamp counter is system time */
  while (rdtsc() < ns) hypercall(29, 3, (u64)&poll, 0, 0, 0);
}
/* ns for which this vCPU has run: VCPUOP_get_runstate_info */
static u64 running(void) {
  struct { u32 state, pad; u64 entry, time[4]; } info;
  hypercall(24, 4, 0, (u64)&info, 0, 0);
  return info.time[0];
}
void guest_main(void) {
  u64 role = option("role", 0), cpus = option("cpus", 1), period = option("period", 10000) * 1000, work = option("work", 3000) * 1000;
  if (role == 0) {
    if (cpus > 1) smp_start(cpus);
    smp_run(cpus, count);
  }
  u64 x = 88172645463325252ul;
  for (u64 at = rdtsc() + 20000000;; ) {
    sleep_until(at);
    if (role == 1) {
      note(at, rdtsc());
      x ^= x << 13, x ^= x >> 7, x ^= x << 17;
      at = rdtsc() + 2000000 + x % 4000000;
      continue;
    }
    for (u64 end = running() + work; running() < end;) for (u32 i = 0; i < 5000; i++) __asm__ volatile("");
    note(at, rdtsc());
    do at += period; while (at < rdtsc());
  }
}
