/*
 * Ways into the hypervisor: CPUID leaves, the hypercall page, VMCALL or VMMCALL by vendor, who may call, and how bad calls are refused.
 * Xen's public headers; Linux chooses the instruction by the CPU's vendor, XTF and Mini-OS use the page.
 */
#include "../common/guest.h"

#define ENOSYS 38
#define EFAULT 14
#define EINVAL 22
#define EPERM 1
static bool is_amd;
static s64 direct(u64 nr, u64 a1, u64 a2) {
  s64 r;
  if (is_amd) __asm__ volatile("vmmcall" : "=a"(r), "+D"(a1), "+S"(a2) : "0"(nr) : "memory", "rcx", "rdx", "r8", "r9", "r10", "r11");
  else __asm__ volatile("vmcall" : "=a"(r), "+D"(a1), "+S"(a2) : "0"(nr) : "memory", "rcx", "rdx", "r8", "r9", "r10", "r11");
  return r;
}
static void expect(const char *what, s64 got, s64 want) { check(got == want, "%s: %ld, not %ld", what, got, want); }

void guest_main(void) {
  if (!xen_base) skip("no Xen");
  u32 r[4];
  cpuid(0, 0, r);
  is_amd = r[1] == 0x68747541 || r[1] == 0x6f677948;
  cpuid(xen_base, 0, r);
  check(r[0] >= xen_base + 4, "the highest leaf is %x", r[0]);
  cpuid(xen_base + 1, 0, r);
  u32 version = r[0];
  check(version >> 16 == 4, "version %x", version);
  cpuid(xen_base + 2, 0, r);
  check(r[0] >= 1 && r[1] >= 0x40000000 && r[1] < 0x40000300, "hypercall pages: %u, MSR %x", r[0], r[1]);

  expect("xen_version by the page", hypercall(17, 0, 0, 0, 0, 0), version);
  expect("xen_version by the instruction", direct(17, 0, 0), version);
  char extra[16] = { 0 };
  expect("XENVER_extraversion", hypercall(17, 1, (u64)extra, 0, 0, 0), 0);
  check(extra[0] != 0, "the extra version is empty");
  char capabilities[1024] = { 0 };
  expect("XENVER_capabilities", hypercall(17, 3, (u64)capabilities, 0, 0, 0), 0);
  check(capabilities[0] == 'x' || capabilities[0] == 'h', "capabilities: \"%s\"", capabilities);
  struct { u32 index, features; } features = { 0, 0 };
  expect("XENVER_get_features", hypercall(17, 6, (u64)&features, 0, 0, 0), 0);
  check((features.features & 0x304) == 0x304, "features %x lack auto_translated, callback vector or safe pvclock", features.features);

  expect("a hypercall that is none", hypercall(63, 0, 0, 0, 0, 0), -ENOSYS);
  expect("the same by the instruction", direct(63, 0, 0), -ENOSYS);
  expect("a huge hypercall number", direct(0xfffffffful, 0, 0), -ENOSYS);
  expect("a PV-only hypercall", direct(0, 0, 0), -ENOSYS);
  expect("an unknown command", hypercall(17, 999, 0, 0, 0, 0), -ENOSYS);
  expect("a bad pointer", hypercall(17, 1, 0xffff800000000000, 0, 0, 0), -EFAULT);
  expect("a non-canonical pointer", hypercall(17, 1, 0x8000000000000000, 0, 0, 0), -EFAULT);
  expect("an unmapped pointer", hypercall(17, 1, REGION + 0x3ff000, 0, 0, 0), -EFAULT);
  expect("SCHEDOP_yield", hypercall(29, 0, 0, 0, 0, 0), 0);
  struct { u16 domid, pad; u32 index; u64 value; } parameter = { 0x7ff0, 0, 9999, 0 };
  expect("an HVM parameter that is none", hypercall(34, 1, (u64)&parameter, 0, 0, 0), -EINVAL);

  struct { u64 address, size; u32 type; } __attribute__((packed)) map[32];
  struct { u32 nr_entries; u64 buffer; } memory_map = { 32, (u64)map };
  expect("XENMEM_memory_map", hypercall(12, 9, (u64)&memory_map, 0, 0, 0), 0);
  u64 ram = 0;
  for (u32 i = 0; i < memory_map.nr_entries && i < 32; i++) if (map[i].type == 1) ram += map[i].size;
  check(ram >= 8 << 20, "the memory map has %lu bytes of RAM in %u entries", ram, memory_map.nr_entries);

  /* from user mode */
  static const u8 amd[] = { 0x0f, 0x01, 0xd9, 0xcd, 0x80 }, intel[] = { 0x0f, 0x01, 0xc1, 0xcd, 0x80 };
  u64 page = new_page();
  map_page(REGION, page, PTE_P | PTE_U);
  map_page(REGION + 4096, new_page(), PTE_P | PTE_U | PTE_W);
  memcpy((void *)page, is_amd ? amd : intel, 5);
  int v = attempt_user(USER_CS, REGION, REGION + 8192, 0x202, 0);
  check(v == USER_EXIT && (s64)outcome.frame.rax == -EPERM, "a hypercall in user mode: vector %d, rax %ld", v, (s64)outcome.frame.rax);
}
