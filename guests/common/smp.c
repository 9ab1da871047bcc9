/* See smp.h. The local APIC is used in x2APIC mode; interrupts stay off on all but the first processor. */
#include "smp.h"
#define TRAMPOLINE 0x8000
#define ICR 0x830
#define INIT 0x4500
#define STARTUP 0x4600
#define IPI_VECTOR 0xf1
extern char trampoline[], trampoline_end[];
void smp_main(u32 cpu);

static void (*volatile job[MAX_CPUS])(u32);
static volatile u32 is_there[MAX_CPUS];
static volatile u32 barrier_in, barrier_round;

static struct { u16 limit; u64 base; } __attribute__((packed)) idtr;
static void (*on_ipi)(u32 cpu);
u32 smp_id(void) { return (u32)rdmsr(0x802) >> 1; }
static void ipi(struct frame *f) { (void)f; wrmsr(0x80b, 0); on_ipi(smp_id()); }
static void apic_on(void) { wrmsr(0x1b, rdmsr(0x1b) | 0x400); wrmsr(0x80f, 0x1ff); }
void smp_on_ipi(void (*f)(u32 cpu)) { on_ipi = f; on_interrupt(IPI_VECTOR, ipi); }
void smp_send_ipi(u32 cpu) { wrmsr(ICR, (u64)(cpu * 2) << 32 | IPI_VECTOR); }

void smp_main(u32 cpu) {
  __asm__ volatile("lidt %0" : : "m"(idtr));
  apic_on();
  is_there[cpu] = 1;
  for (;;) {
    while (!job[cpu]) pause();
    job[cpu](cpu);
    __asm__ volatile("" : : : "memory");
    job[cpu] = NULL;
  }
}
static bool start(u32 cpu) {
  u64 to = (u64)(cpu * 2) << 32;
  is_there[cpu] = 0;
  wrmsr(ICR, to | INIT);
  job[cpu] = NULL;
  wrmsr(ICR, to | STARTUP | TRAMPOLINE >> 12);
  for (u64 end = rdtsc() + 20000000000ul; !is_there[cpu] && rdtsc() < end;) pause();
  return is_there[cpu];
}
u32 smp_start(u32 n) {
  u32 there = 1;
  apic_on();
  __asm__ volatile("sidt %0" : "=m"(idtr));
  memcpy((void *)TRAMPOLINE, trampoline, trampoline_end - trampoline);
  for (u32 cpu = 1; cpu < n && cpu < MAX_CPUS; cpu++) there += start(cpu);
  return there;
}
bool smp_restart(u32 cpu) { return start(cpu); }
void smp_run(u32 n, void (*f)(u32)) {
  for (u32 cpu = 1; cpu < n; cpu++) job[cpu] = f;
  f(0);
  for (u32 cpu = 1; cpu < n; cpu++) while (job[cpu]) pause();
}
void smp_barrier(u32 n) {
  u32 round = barrier_round;
  if (atomic_add(&barrier_in, 1) == n - 1) {
    barrier_in = 0;
    __asm__ volatile("" : : : "memory");
    barrier_round = round + 1;
  } else while (barrier_round == round) pause();
}
