/*
 * Event channels: 2-level and FIFO, sent to ourselves. When an upcall comes and when it must not, masks, states, refusals.
 * public/event_channel.h; Linux drives its interrupts with these.
 */
#include "events.h"

static volatile u32 upcalls, seen[4096];
static void upcall(struct frame *f) {
  (void)f;
  upcalls++;
  *UPCALL_PENDING = 0;
  u64 sel = exchange(PENDING_SEL, 0);
  for (u32 w = 0; w < 64; w++) if (sel >> w & 1) for (u32 b = 0; b < 64; b++) {
    u32 port = 64 * w + b;
    if (test_bit(PENDING, port) && !test_bit(MASK, port) && clear_bit(PENDING, port)) seen[port]++;
  }
}
static void open_window(void) { __asm__ volatile("sti; nop; nop; cli" : : : "memory"); }
static void expect(const char *what, s64 got, s64 want) { check(got == want, "%s: %ld, not %ld", what, got, want); }

static void two_level(void) {
  u32 a, b, ipi, virq;
  for (u32 i = 0; i < 64; i++) MASK[i] = ~0ul;
  expect("callback by vector", callback_by_vector(VECTOR), 0);
  on_interrupt(VECTOR, upcall);
  expect("alloc_unbound", alloc_unbound(&a), 0);
  expect("status unbound", evtchn_status(a), 1);
  expect("bind_interdomain with oneself", bind_interdomain(a, &b), 0);
  expect("status interdomain", evtchn_status(b), 2);
  check(a != b && a && b, "ports %u and %u", a, b);
  check(clear_bit(PENDING, b), "binding does not make up for lost events: the local port is not pending");
  open_window();
  upcalls = 0;

  expect("send, masked", evtchn_send(b), 0);
  open_window();
  check(upcalls == 0 && test_bit(PENDING, a) && !test_bit(PENDING, b), "a masked event: %u upcalls", upcalls);
  expect("unmask", evtchn_unmask(a), 0);
  open_window();
  check(upcalls == 1 && seen[a] == 1, "unmask of a pending event: %u upcalls, seen %u", upcalls, seen[a]);
  check(!test_bit(MASK, a), "unmask leaves the mask");

  upcalls = seen[a] = 0;
  expect("send with interrupts off", evtchn_send(b), 0);
  expect("and again", evtchn_send(b), 0);
  check(upcalls == 0 && *UPCALL_PENDING == 1, "an upcall came with interrupts off, or none waits");
  open_window();
  check(upcalls == 1 && seen[a] == 1, "two sends: %u upcalls, seen %u", upcalls, seen[a]);
  clear_bit(MASK, b);
  seen[b] = 0;
  expect("send the other way", evtchn_send(a), 0);
  open_window();
  check(seen[b] == 1, "the other way: seen %u", seen[b]);

  expect("bind_ipi", bind_ipi(&ipi), 0);
  expect("status ipi", evtchn_status(ipi), 5);
  clear_bit(MASK, ipi);
  expect("send to the ipi", evtchn_send(ipi), 0);
  open_window();
  check(seen[ipi] == 1, "ipi: seen %u", seen[ipi]);
  expect("bind_virq", bind_virq(0, &virq), 0);
  expect("status virq", evtchn_status(virq), 4);
  u32 second;
  expect("the same virq again", bind_virq(0, &second), -17);
  expect("send to a virq", evtchn_send(virq), -22);

  for (u32 i = 0; i < 5000; i++) { evtchn_send(b); open_window(); }
  check(seen[a] == 5001, "5000 events: %u", seen[a]);

  struct { u64 ports; u32 nr, pad; u64 timeout; } poll = { (u64)&a, 1, 0, 0 };
  set_bit(MASK, a);
  evtchn_send(b);
  expect("poll of a pending port", hypercall(29, 3, (u64)&poll, 0, 0, 0), 0);
  check(clear_bit(PENDING, a), "poll consumed the event");

  expect("close", evtchn_close(a), 0);
  expect("status of its peer", evtchn_status(b), 1);
  expect("close of the peer", evtchn_close(b), 0);
  expect("send to a closed port", evtchn_send(b), -22);
  expect("close a closed port", evtchn_close(b), -22);
  expect("send to port 0", evtchn_send(0), -22);
  expect("send far beyond", evtchn_send(0xffffffff), -22);
  expect("status far beyond", evtchn_status(0x7fffffff), -22);
  expect("unmask far beyond", evtchn_unmask(0x100000), -22);
  expect("bind to a port that is none", bind_interdomain(999, &second), -22);
  expect("an unknown command", EVTCHN(99, &a), -38);
  expect("close virq", evtchn_close(virq), 0);
  expect("close ipi", evtchn_close(ipi), 0);
}

/* FIFO: public/event_channel.h EVTCHN_FIFO_*: PENDING 31, MASKED 30, LINKED 29 */
static volatile u32 *words, *control;
static u32 order[16], nr_ordered;
static void fifo_upcall(struct frame *f) {
  (void)f;
  upcalls++;
  *UPCALL_PENDING = 0;
  for (;;) {
    u32 ready = 0;
    __asm__ volatile("xchg %0, %1" : "+r"(ready), "+m"(control[0]) : : "memory");
    if (!ready) return;
    for (; ready; ready &= ready - 1) {
      u32 q = __builtin_ctz(ready), port = control[2 + q];
      for (u32 guard = 0; port && guard < 100; guard++) {
        u32 w = words[port];
        while (!__sync_bool_compare_and_swap(&words[port], w, w & ~(0x20000000u | 0x1ffff))) w = words[port];
        if (w >> 31 && !(w >> 30 & 1)) { __sync_fetch_and_and(&words[port], 0x7fffffff); seen[port]++; if (nr_ordered < 16) order[nr_ordered++] = port; }
        port = w & 0x1ffff;
      }
    }
  }
}
static void fifo(void) {
  control = (u32 *)new_page();
  words = (u32 *)new_page();
  for (u32 i = 0; i < 1024; i++) words[i] = 0x40000000;            /* the guest's to do: all masked */
  struct { u64 gfn; u32 offset, vcpu; u8 link_bits, pad[7]; } init = { (u64)control >> 12, 0, 0, 0, { 0 } };
  struct { u64 gfn; } expand = { (u64)words >> 12 };
  init.offset = 4090;
  expect("init_control across the page", EVTCHN(11, &init), -22);
  init.offset = 0;
  init.vcpu = 99;
  s64 e = EVTCHN(11, &init);
  check(e == -22 || e == -2, "init_control of a vcpu that is none: %ld", e);
  init.vcpu = 0;
  expect("init_control", EVTCHN(11, &init), 0);
  check(init.link_bits == 17, "link bits %u", init.link_bits);
  u32 a, b, c, d;
  s64 early = alloc_unbound(&a);
  if (early == 0) evtchn_close(a);
  expect("expand_array", EVTCHN(12, &expand), 0);
  on_interrupt(VECTOR, fifo_upcall);
  expect("alloc_unbound", alloc_unbound(&a), 0);
  expect("bind_interdomain", bind_interdomain(a, &b), 0);
  check(words[b] >> 31, "binding does not make up for lost events: word %x", words[b]);
  words[b] = 0x40000000;
  upcalls = seen[a] = 0;
  expect("send, masked", evtchn_send(b), 0);
  open_window();
  check(upcalls == 0 && words[a] >> 31, "a masked event: %u upcalls, word %x", upcalls, words[a]);
  __sync_fetch_and_and(&words[a], ~0x40000000u);
  expect("unmask", evtchn_unmask(a), 0);
  open_window();
  check(seen[a] == 1, "unmask of a pending event: seen %u, word %x", seen[a], words[a]);
  evtchn_send(b); evtchn_send(b);
  open_window();
  check(seen[a] == 2, "two sends: seen %u", seen[a]);

  expect("alloc_unbound", alloc_unbound(&c), 0);
  expect("bind_interdomain", bind_interdomain(c, &d), 0);
  __sync_fetch_and_and(&words[c], ~0x40000000u);
  seen[c] = 0;
  nr_ordered = 0;
  evtchn_send(d); evtchn_send(b);
  open_window();
  check(nr_ordered == 2 && order[0] == c && order[1] == a, "order of events: %u %u, not %u %u", order[0], order[1], c, a);
  struct { u32 port, priority; } priority = { a, 0 };
  expect("set_priority", EVTCHN(13, &priority), 0);
  priority.priority = 99;
  expect("set_priority beyond", EVTCHN(13, &priority), -22);
  nr_ordered = 0;
  evtchn_send(d); evtchn_send(b);
  open_window();
  check(nr_ordered == 2 && order[0] == a && order[1] == c, "order by priority: %u %u, not %u %u", order[0], order[1], a, c);
  for (u32 i = 0; i < 3000; i++) { evtchn_send(b); if (i % 3 == 0) evtchn_send(d); open_window(); }
  check(seen[a] == 3004 && seen[c] == 1002, "many events: %u and %u", seen[a], seen[c]);
  /* hostile words: links that lead nowhere must not hurt the hypervisor */
  words[a] = 0x2001ffff; words[c] = 0x3001fffe; control[2] = 0xffffffff;
  evtchn_send(b); evtchn_send(d);
  evtchn_close(a); evtchn_close(b); evtchn_close(c); evtchn_close(d);
}

void guest_main(void) {
  if (!xen_base) skip("no Xen");
  print("2-level\n");
  two_level();
  print("FIFO\n");
  fifo();
}
