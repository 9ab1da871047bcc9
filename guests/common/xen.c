/* The hypervisor's side: hypercall page, HVM parameters, shared info, console. Numbers from Xen's public headers. */
#include "guest.h"

u32 xen_base;
static u8 hypercall_page[4096] __attribute__((aligned(4096)));
static volatile u8 *console_ring;
static u32 console_port;

s64 hypercall(u64 nr, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5) {
  s64 result;
  register u64 r10 __asm__("r10") = a4;
  register u64 r8 __asm__("r8") = a5;
  __asm__ volatile("call *%[page]" : "=a"(result), "+D"(a1), "+S"(a2), "+d"(a3), "+r"(r10), "+r"(r8)
    : [page] "r"((u64)hypercall_page + 32 * nr), "0"(nr) : "memory", "rcx", "r9", "r11");
  return result;
}
u64 hvm_param(u32 index) {
  struct { u16 domid, pad; u32 index; u64 value; } p = { 0x7ff0, 0, index, 0 };
  return hypercall(34, 1, (u64)&p, 0, 0, 0) == 0 ? p.value : 0;
}

void xen_init(void) {
  u32 r[4];
  for (u32 leaf = 0x40000000; leaf < 0x40010000; leaf += 0x100) {
    cpuid(leaf, 0, r);
    if (r[1] == 0x566e6558 && r[2] == 0x65584d4d && r[3] == 0x4d4d566e) { xen_base = leaf; break; }
  }
  if (!xen_base) return;
  cpuid(xen_base + 2, 0, r);
  wrmsr(r[1], (u64)hypercall_page);
  console_ring = (u8 *)(hvm_param(17) << 12);    /* HVM_PARAM_CONSOLE_PFN, _EVTCHN */
  console_port = hvm_param(18);
}

/* struct xencons_interface: in[1024], out[2048], in_cons, in_prod, out_cons, out_prod */
void xen_console_write(const char *text, u32 n) {
  hypercall(18, 0, n, (u64)text, 0, 0);          /* console_io, CONSOLEIO_write: a domU may be refused */
  if (!console_ring) return;
  volatile u32 *cons = (u32 *)(console_ring + 3072 + 8), *prod = cons + 1;
  for (u32 i = 0; i < n; i++) {
    for (u32 spin = 0; *prod - *cons >= 2048; spin++) { if (spin > 1000) return; hypercall(29, 0, 0, 0, 0, 0); }
    console_ring[1024 + (*prod & 2047)] = text[i];
    __asm__ volatile("" : : : "memory");
    *prod += 1;
  }
  hypercall(32, 4, (u64)&console_port, 0, 0, 0); /* EVTCHNOP_send */
}

struct shared_info *shared_info(void) {
  static u8 page[4096] __attribute__((aligned(4096)));
  static bool mapped;
  if (!mapped) {
    struct { u16 domid, size; u32 space; u64 idx, gpfn; } add = { 0x7ff0, 0, 0, 0, (u64)page >> 12 };
    s64 e = hypercall(12, 7, (u64)&add, 0, 0, 0); /* XENMEM_add_to_physmap, XENMAPSPACE_shared_info */
    check(e == 0, "shared info cannot be mapped: %d", (int)e);
    mapped = true;
  }
  return (struct shared_info *)page;
}
