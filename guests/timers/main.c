/*
 * Time: pvclock, the singleshot timer by VIRQ_TIMER, and the local APIC's timer (which QEMU has too). An interrupt comes once, not before
 * its time, waits for IF and TPR, and wakes a halted processor; an NMI waits for nothing but the end of the last one. public/vcpu.h, public/xen.h vcpu_time_info; SDM Vol. 3A 10.5.4, 10.8.
 */
#include "../events/events.h"

static volatile u32 upcalls, ticks;
static void expect(const char *what, s64 got, s64 want) { check(got == want, "%s: %ld, not %ld", what, got, want); }
static void upcall(struct frame *f) {
  (void)f;
  upcalls++;
  *UPCALL_PENDING = 0;
  u64 sel = exchange(PENDING_SEL, 0);
  for (u32 w = 0; w < 64; w++) if (sel >> w & 1) PENDING[w] = 0;
}

/* struct vcpu_time_info in vcpu_info, at 32 */
static u64 system_time(void) {
  volatile u8 *t = (u8 *)shared_info() + 32;
  for (;;) {
    u32 version = *(volatile u32 *)t;
    u64 stamp = *(volatile u64 *)(t + 8), base = *(volatile u64 *)(t + 16), delta = rdtsc() - stamp;
    u32 mul = *(volatile u32 *)(t + 24);
    signed char shift = *(volatile signed char *)(t + 28);
    if (version & 1 || *(volatile u32 *)t != version) continue;
    delta = shift < 0 ? delta >> -shift : delta << shift;
    return base + (u64)((unsigned __int128)delta * mul >> 32);
  }
}
static s64 set_timer(u64 at, u32 flags) { struct { u64 timeout; u32 flags, pad; } s = { at, flags, 0 }; return hypercall(24, 8, 0, (u64)&s, 0, 0); }
#define MS 1000000ul

static void xen_time(void) {
  u32 port;
  for (u32 i = 0; i < 64; i++) MASK[i] = ~0ul;
  expect("callback by vector", callback_by_vector(VECTOR), 0);
  on_interrupt(VECTOR, upcall);
  expect("stop_periodic_timer", hypercall(24, 7, 0, 0, 0, 0), 0);
  expect("bind VIRQ_TIMER", bind_virq(0, &port), 0);
  clear_bit(MASK, port);
  __asm__ volatile("sti; nop; nop; cli");
  u64 last = system_time();
  for (u32 i = 0; i < 20000; i++) {
    u64 now = system_time();
    if (now < last) { check(false, "time ran backwards from %lu to %lu", last, now); break; }
    last = now;
  }
  for (u32 ms = 1; ms <= 20; ms += 19) {
    upcalls = 0;
    u64 at = system_time() + ms * MS;
    expect("set_singleshot_timer", set_timer(at, 0), 0);
    while (!upcalls) __asm__ volatile("sti; hlt; cli" : : : "memory");
    u64 now = system_time();
    check(now >= at, "the timer came %lu ns early", at - now);
    check(now < at + 200 * MS, "the timer came %lu ns late", now - at);
    check(upcalls == 1, "%u upcalls", upcalls);
  }
  upcalls = 0;
  expect("a timer in the past", set_timer(system_time() - MS, 0), 0);
  u64 end = system_time() + 50 * MS;
  sti();
  while (!upcalls && system_time() < end) ;
  cli();
  check(upcalls == 1, "a timer in the past: %u upcalls", upcalls);
  expect("a timer in the past that must be in the future", set_timer(system_time() - MS, 1), -62);
  upcalls = 0;
  set_timer(system_time() + 10 * MS, 0);
  expect("stop_singleshot_timer", hypercall(24, 9, 0, 0, 0, 0), 0);
  end = system_time() + 20 * MS;
  sti();
  while (system_time() < end) ;
  cli();
  check(upcalls == 0, "a stopped timer came");
  /* a busy loop is interrupted, too */
  upcalls = 0;
  set_timer(system_time() + 3 * MS, 0);
  end = system_time() + 500 * MS;
  sti();
  while (!upcalls && system_time() < end) ;
  cli();
  check(upcalls == 1, "no timer in a busy loop");
  expect("a vcpu that is none", hypercall(24, 9, 77, 0, 0, 0), -2);
}

static volatile u32 *apic;
#define APIC(at) apic[(at) / 4]
static void tick(struct frame *f) { (void)f; ticks++; APIC(0xb0) = 0; }
static bool wait_ticks(u32 n) {
  u64 limit = 0;
  sti();
  while (ticks < n && limit++ < 50000000) __asm__ volatile("pause");
  cli();
  return ticks >= n;
}
static void apic_timer(void) {
  apic = (u32 *)(rdmsr(0x1b) & 0xffffff000);
  check(rdmsr(0x1b) & 0x800, "the APIC is disabled: %lx", rdmsr(0x1b));
  check((APIC(0x30) & 0xff) >= 0x10 && (APIC(0x30) >> 16 & 0xff) >= 4, "APIC version %x", APIC(0x30));
  on_interrupt(0x70, tick);
  on_interrupt(0xff, tick);
  APIC(0xf0) = 0x1ff;
  APIC(0x3e0) = 0xb;                                   /* divide by one */
  APIC(0x320) = 0x70;
  ticks = 0;
  APIC(0x380) = 1000000;
  u32 one = APIC(0x390), two = 0;
  for (u32 i = 0; i < 100; i++) two = APIC(0x390);
  check(one <= 1000000 && two <= one, "the count goes from %u to %u", one, two);
  check(wait_ticks(1), "one-shot: no interrupt");
  check(APIC(0x390) == 0, "one-shot: the count is %u afterwards", APIC(0x390));
  u32 before = ticks;
  for (u32 i = 0; i < 1000000; i++) __asm__ volatile("pause");
  sti(); __asm__ volatile("nop; nop"); cli();
  check(ticks == before, "one-shot: a second interrupt");

  ticks = 0;
  APIC(0x320) = 0x20070;
  APIC(0x380) = 1000000;
  check(wait_ticks(5), "periodic: %u interrupts", ticks);
  APIC(0x320) = 0x30070;                               /* masked */
  sti(); __asm__ volatile("nop; nop"); cli();
  before = ticks;
  for (u32 i = 0; i < 3000000; i++) __asm__ volatile("pause");
  sti(); __asm__ volatile("nop; nop"); cli();
  check(ticks == before, "masked: an interrupt");
  APIC(0x380) = 0;

  print("priorities\n");
  ticks = 0;
  WRITE_CR(8, 15);
  APIC(0x300) = 0x40070;                               /* self IPI, vector 0x70 */
  sti(); __asm__ volatile("nop; nop; nop"); cli();
  check(ticks == 0, "TPR 15 lets vector 0x70 through");
  check(APIC(0x80) == 0xf0, "CR8 and TPR: %x", APIC(0x80));
  check(APIC(0x200 + 16 * 3) >> 16 & 1, "IRR does not show vector 0x70: %x", APIC(0x230));
  WRITE_CR(8, 7);
  sti(); __asm__ volatile("nop; nop; nop"); cli();
  check(ticks == 0, "TPR 7 lets vector 0x70 through");
  WRITE_CR(8, 6);
  sti(); __asm__ volatile("nop; nop; nop"); cli();
  check(ticks == 1, "TPR 6 holds vector 0x70");
  WRITE_CR(8, 0);

  print("halt\n");
  ticks = 0;
  APIC(0x320) = 0x70;
  APIC(0x380) = 5000000;
  __asm__ volatile("sti; hlt; cli" : : : "memory");
  check(ticks == 1, "hlt returned after %u interrupts", ticks);
}

static volatile u32 nmis, nmi_depth, nmi_deepest;
static u32 nmi_more;
static void send_nmi(void) { APIC(0x310) = APIC(0x20) & 0xff000000; APIC(0x300) = 0x4400; }
static void wait_nmis(u32 n) {
  for (u32 i = 0; i < 50000000 && nmis < n; i++) __asm__ volatile("pause");
  for (u32 i = 0; i < 100000; i++) __asm__ volatile("pause");
}
static void nmi(struct frame *f) {
  (void)f;
  nmis++;
  if (++nmi_depth > nmi_deepest) nmi_deepest = nmi_depth;
  if (nmi_more) {
    nmi_more--;
    u32 before = nmis;
    send_nmi();
    for (u32 i = 0; i < 100000; i++) __asm__ volatile("pause");
    check(nmis == before, "an NMI within an NMI");
  }
  nmi_depth--;
}
static void non_maskable(void) {
  on_interrupt(2, nmi);
  cli();
  send_nmi();
  wait_nmis(1);
  check(nmis == 1, "one NMI with interrupts off: %u", nmis);
  nmi_more = 2;
  send_nmi();
  wait_nmis(4);
  check(nmis == 4 && nmi_deepest == 1, "an NMI with two more, each out of the last: %u, %u deep", nmis - 1, nmi_deepest);
}

void guest_main(void) {
  if (xen_base) { print("Xen's time\n"); xen_time(); }
  print("local APIC timer\n");
  apic_timer();
  print("NMI\n");
  non_maskable();
}
