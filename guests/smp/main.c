/*
 * Processors that share memory: they start, stop and start again; x86's memory order holds (litmus tests of SDM Vol. 3A 8.2.3: stores in order, loads in order, no processor sees
 * two others' stores in another order than a third, a load passes an older store unless a fence or a locked instruction stands between); locked accesses are atomic, aligned or not,
 * CMPXCHG16B too; what one processor writes into code another executes it after it has heard of it; page table changes are seen after INVLPG. cpus=N rounds=N seed=N; restarts=N: of each
 * processor but the first; pages=N: of code that is patched, one after the other
 */
#include "../common/smp.h"

static u32 cpus, rounds, restarts, pages;
static volatile u64 seed;
static u32 random(u32 cpu, u32 n) {          /* delays: they need not be good, and are each processor's own */
  static u64 state[MAX_CPUS][8];
  u64 x = state[cpu][0] ? state[cpu][0] : seed + 77 * cpu + 1;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  state[cpu][0] = x;
  return (u32)(x >> 11) % n;
}
static void delay(u32 cpu) { for (u32 n = random(cpu, 16); n; n--) __asm__ volatile(""); }

/* words that lie on lines of their own */
static struct { volatile u64 v; u64 pad[7]; } x, y, r[MAX_CPUS][2];
#define MFENCE __asm__ volatile("mfence" : : : "memory")

enum { PLAIN, FENCE, LOCKED, XCHG };
static int between;
static u32 both_zero, out_of_order;

static void store_buffering(u32 cpu) {       /* x = 1; r0 = y | y = 1; r1 = x */
  for (u32 i = 0; i < rounds; i++) {
    if (cpu == 0) x.v = y.v = 0;
    smp_barrier(2);
    delay(cpu);
    volatile u64 *mine = cpu ? &y.v : &x.v, *other = cpu ? &x.v : &y.v;
    static u64 dummy[2][8];
    if (between == XCHG) { u64 one = 1; __asm__ volatile("xchg %0, %1" : "+r"(one), "+m"(*mine) : : "memory"); } else *mine = 1;
    if (between == FENCE) MFENCE;
    if (between == LOCKED) __asm__ volatile("lock orq $0, %0" : "+m"(dummy[cpu][0]) : : "memory");
    r[cpu][0].v = *other;
    smp_barrier(2);
    if (cpu == 0 && !r[0][0].v && !r[1][0].v) both_zero++;
  }
}
static void message_passing(u32 cpu) {       /* x = i; y = i | sees y's i, so it sees x's */
  for (u32 i = 1; i <= rounds; i++) {
    if (cpu == 0) { delay(cpu); x.v = i; y.v = i; }
    else { u64 flag = y.v, data = x.v; if (data < flag) out_of_order++; }
  }
}
static void independent_reads(u32 cpu) {     /* x = 1 | y = 1 | reads x, y | reads y, x: not 1 0 and 1 0 */
  for (u32 i = 0; i < rounds / 2; i++) {
    if (cpu == 0) x.v = y.v = 0;
    smp_barrier(4);
    delay(cpu);
    if (cpu == 0) x.v = 1;
    if (cpu == 1) y.v = 1;
    if (cpu == 2) { r[2][0].v = x.v; r[2][1].v = y.v; }
    if (cpu == 3) { r[3][0].v = y.v; r[3][1].v = x.v; }
    smp_barrier(4);
    if (cpu == 0 && r[2][0].v && !r[2][1].v && r[3][0].v && !r[3][1].v) out_of_order++;
  }
}

static u8 *counters;                         /* two pages */
static u32 offset;
static void locked_increments(u32 cpu) {
  (void)cpu;
  for (u32 i = 0; i < rounds; i++) switch (i % 3) {
    case 0: __asm__ volatile("lock incl %0" : "+m"(*(u32 *)(counters + offset)) : : "memory"); break;
    case 1: { u32 one = 1; __asm__ volatile("lock xaddl %0, %1" : "+r"(one), "+m"(*(u32 *)(counters + offset)) : : "memory"); break; }
    default: {
      u32 old = *(volatile u32 *)(counters + offset), was;
      for (;; old = was) { __asm__ volatile("lock cmpxchgl %2, %1" : "=a"(was), "+m"(*(u32 *)(counters + offset)) : "r"(old + 1), "0"(old) : "memory"); if (was == old) break; }
    }
  }
}
static struct { u64 low, high; } wide __attribute__((aligned(16)));
static u32 torn;
static void wide_exchange(u32 cpu) {
  (void)cpu;
  for (u32 i = 0; i < rounds / 4; i++) {
    u64 low = wide.low, high = wide.high;
    for (bool done = false; !done;) {
      __asm__ volatile("lock cmpxchg16b %1" : "=@ccz"(done), "+m"(wide), "+a"(low), "+d"(high) : "b"(low + 1), "c"(high + 3) : "memory");
      if (!done && high != 3 * low) torn++;
    }
  }
}

/*
 * Linux's way to change code that others execute: INT3 over the first byte, the rest, the first byte; after each an interrupt to all others, whose IRET serialises, and their answer waited
 * for. They call all the time and get the old value, the new one or the trap: never a mixture, nothing older than what they answered for, and nothing newer than what was begun. Step 3 n + 2
 * is the value n, the two before it are the trap.
 */
static u8 *code;
typedef u32 (*Returns)(void);
static volatile u32 begun, step, answered[MAX_CPUS], told, heard;
static u32 traps, wrong, wrong_at;
static void over_int3(struct frame *f) { traps++; f->rip += 4; f->rax = 0xffffffff; }        /* as if the instruction had been executed */
static void answer(u32 cpu) { answered[cpu] = step; }
static void patched_code(u32 cpu) {
  u32 n = rounds / 16;
  if (cpu == 0) {
    for (u32 i = 1; i <= n; i++) for (u32 part = 0; part < 3; part++) {
      begun = i * 3 + part;
      if (part == 0) code[1024] = 0xcc;
      if (part == 1) *(volatile u32 *)(code + 1025) = i;
      if (part == 2) code[1024] = 0xb8;
      step = begun;
      for (u32 c = 1; c < cpus; c++) smp_send_ipi(c);
      for (u32 c = 1; c < cpus; c++) while (answered[c] != step) pause();
    }
    step = ~0u;
    for (u32 c = 1; c < cpus; c++) smp_send_ipi(c);
  } else {
    sti();
    while (step != ~0u) {
      u32 last = answered[cpu], got = ((Returns)(code + 1024))(), most = begun;
      if (last < 3 || last == ~0u) continue;
      if (got == 0xffffffff ? last == most && last % 3 == 2 : got * 3 + 2 < last || got * 3 + 2 > most) wrong++, wrong_at = last;
    }
    cli();
  }
}
/* Processor 0 changes a mapping and tells; the other invalidates and reads. Both set accessed and dirty bits by compare-and-exchange with the page walks. */
static u64 frames[2];
static u32 old_page, lost_dirty;
static void remapping(u32 cpu) {
  volatile u64 *pte = pte_of(REGION);
  for (u32 i = 1; i <= rounds / 8; i++) {
    if (cpu == 0) {
      u64 before = __atomic_exchange_n(pte, frames[i & 1] | PTE_P | PTE_W, __ATOMIC_SEQ_CST);
      if (i > 1 && !(before & PTE_D)) lost_dirty++;
      told = i;
      while (heard != i) pause();
    } else {
      while (told != i) pause();
      invlpg(REGION);
      if (*(volatile u64 *)REGION != frames[i & 1]) old_page++;
      *(volatile u64 *)(REGION + 8) = i;
      heard = i;
    }
  }
}

static void stage(const char *name) { static u64 last; u64 now = rdtsc(); if (option("verbose", 0)) print("%lu ms, then %s\n", last ? (now - last) / 1000000 : 0, name); last = now; }

void guest_main(void) {
  cpus = option("cpus", 0), rounds = option("rounds", 4000), seed = option("seed", 1), restarts = option("restarts", 1), pages = option("pages", 1);
  if (cpus < 2) skip("give the number of processors: cpus=N");
  u32 there = smp_start(cpus);
  check(there == cpus, "%u of %u processors started", there, cpus);
  if (there != cpus) return;
  for (u32 i = 0; i < restarts * (cpus - 1); i++) {
    u32 cpu = 1 + i % (cpus - 1);
    bool is_there = smp_restart(cpu);
    check(is_there, "processor %u, which ran, did not start anew after INIT and SIPI (%u)", cpu, i);
    if (!is_there) return;
  }

  stage("store buffering");
  static const char *const names[] = { "nothing", "MFENCE", "a locked instruction", "XCHG" };
  for (between = PLAIN; between <= XCHG; between++) {
    both_zero = 0;
    smp_run(2, store_buffering);
    if (between == PLAIN) print("store buffering: %u of %u loads passed the other's store\n", both_zero, rounds);
    else check(both_zero == 0, "a load passed an older store with %s between, %u times", names[between], both_zero);
  }
  stage("message passing");
  x.v = y.v = 0;
  smp_run(2, message_passing);
  check(out_of_order == 0, "message passing: %u times the flag came before the data", out_of_order);
  stage("independent reads");
  if (cpus >= 4) {
    out_of_order = 0;
    smp_run(4, independent_reads);
    check(out_of_order == 0, "independent reads of independent writes: %u times in two orders", out_of_order);
  }

  stage("locked increments");
  counters = (u8 *)new_page(), new_page();
  static const u32 offsets[] = { 0, 1, 6, 61, 4094 };
  for (u32 i = 0; i < sizeof offsets / sizeof *offsets; i++) {
    offset = offsets[i];
    *(volatile u32 *)(counters + offset) = 0;
    smp_run(cpus, locked_increments);
    u32 sum = *(volatile u32 *)(counters + offset);
    check(sum == cpus * rounds, "locked increments at offset %u: %u, not %u", offset, sum, cpus * rounds);
  }
  stage("CMPXCHG16B");
  smp_run(cpus, wide_exchange);
  check(wide.low == cpus * (rounds / 4) && wide.high == 3 * wide.low && !torn, "CMPXCHG16B: %lu, %lu after %u, halves apart %u times", wide.low, wide.high, cpus * (rounds / 4), torn);

  stage("patched code");
  on_interrupt(BP, over_int3);
  smp_on_ipi(answer);
  for (u32 page = 0; page < pages; page++) {
    code = (u8 *)new_page();
    code[1024] = 0xb8, *(u32 *)(code + 1025) = 0, code[1029] = 0xc3;
    step = begun = 0;
    for (u32 cpu = 1; cpu < cpus; cpu++) answered[cpu] = 0;
    smp_run(cpus, patched_code);
    check(wrong == 0, "code patched by way of INT3: %u times neither old, new nor the trap, last at %u of page %u (%u traps)", wrong, wrong_at, page, traps);
    wrong = 0;
  }

  stage("remapping");
  frames[0] = new_page(), frames[1] = new_page();
  for (u32 i = 0; i < 2; i++) *(u64 *)frames[i] = frames[i];
  map_page(REGION, frames[0], PTE_P | PTE_W);
  told = heard = 0;
  smp_run(2, remapping);
  check(old_page == 0, "a page that was taken away: read %u times after INVLPG", old_page);
  check(lost_dirty == 0, "dirty bits lost: %u", lost_dirty);
}
