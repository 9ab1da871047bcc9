/*
 * Page faults: error code and CR2 for every way an access can be refused, and what sets the accessed and dirty bits.
 * A hypervisor's software TLB must check what the walk would check, whatever it has cached. SDM Vol. 3A 4.6 to 4.8.
 */
#include "../common/guest.h"

static void read1(u64 a) { (void)*(volatile u8 *)a; }
static void write1(u64 a) { *(volatile u8 *)a = 0x5a; }
static void rmw8(u64 a) { __asm__ volatile("lock addq $1, (%0)" : : "r"(a) : "memory"); }
static void read8(u64 a) { (void)*(volatile u64 *)a; }
static void write8(u64 a) { *(volatile u64 *)a = 0x1122334455667788; }
static void call(u64 a) { ((void (*)(void))a)(); }
static void read1_ac(u64 a) { __asm__ volatile("stac; movb (%0), %%al; clac" : : "r"(a) : "rax", "memory"); }
static void read_ss(u64 a) { __asm__ volatile("push %%rbp; mov %0, %%rbp; movb (%%rbp), %%al; pop %%rbp" : : "r"(a) : "rax", "memory"); }

static void expect(const char *what, void (*f)(u64), u64 address, int vector, u64 error, u64 cr2) {
  int got = attempt(f, address);
  check(got == vector, "%s: vector %d, not %d", what, got, vector);
  if (got != vector || vector == NO_FAULT) return;
  check(outcome.frame.error == error, "%s: error code %lx, not %lx", what, outcome.frame.error, error);
  if (vector == PF) check(outcome.cr2 == cr2, "%s: cr2 %lx, not %lx", what, outcome.cr2, cr2);
}
/* User code at REGION + 0x10000: reads, writes or calls what rdi points at. */
static const u8 user_read[] = { 0x8a, 0x07, 0xcd, 0x80 }, user_write[] = { 0xc6, 0x07, 0x01, 0xcd, 0x80 }, user_jump[] = { 0xff, 0xe7 };
static void expect_user(const char *what, const u8 *code, u64 size, u64 address, int vector, u64 error) {
  u64 page = REGION + 0x10000;
  memcpy((void *)(*pte_of(page) & 0xffffffffff000), code, size);
  int got = attempt_user(USER_CS, page, REGION + 0x12000, 0x202, address);
  check(got == vector, "%s: vector %d, not %d", what, got, vector);
  if (got == PF) check(outcome.frame.error == error && outcome.cr2 == address, "%s: error code %lx, not %lx, cr2 %lx", what, outcome.frame.error, error, outcome.cr2);
}

void guest_main(void) {
  u64 a = REGION, page = new_page(), next = new_page(), code = new_page();
  *(u8 *)page = 0xc3;
  *(u8 *)code = 0xc3;

  print("not present\n");
  expect("read, not present", read1, a + 0x123, PF, 0, a + 0x123);
  expect("write, not present", write1, a + 0x123, PF, 2, a + 0x123);
  expect("fetch, not present", call, a + 0x123, PF, 0x10, a + 0x123);
  expect("read, no directory", read1, REGION + (1ul << 30), PF, 0, REGION + (1ul << 30));
  expect("read, no PML4 entry", read1, 0x10000000000, PF, 0, 0x10000000000);
  expect("read, upper half", read1, 0xffff800000000000, PF, 0, 0xffff800000000000);
  expect("not canonical", read1, 0x800000000000, GP, 0, 0);
  expect("not canonical, stack", read_ss, 0x800000000000, SS, 0, 0);
  expect("jump, not canonical", call, 0x8000000000000000, GP, 0, 0);

  print("rights\n");
  map_page(a, page, PTE_P);
  expect("read, read-only", read1, a, NO_FAULT, 0, 0);
  expect("write, read-only", write1, a, PF, 3, a);
  expect("read-modify-write, read-only", rmw8, a, PF, 3, a);
  check(!(*pte_of(a) & PTE_D) && *pte_of(a) & PTE_A, "a refused write left accessed and dirty %lx", *pte_of(a));
  WRITE_CR(0, READ_CR(0) & ~0x10000ul);
  expect("write, read-only, WP off", write1, a, NO_FAULT, 0, 0);
  check(*pte_of(a) & PTE_D, "a write with WP off left the page clean");
  WRITE_CR(0, READ_CR(0) | 0x10000);
  expect("write, read-only, WP on again", write1, a, PF, 3, a);
  *(u8 *)page = 0xc3;
  expect("fetch, executable", call, a, NO_FAULT, 0, 0);
  map_page(a, page, PTE_P | PTE_W | PTE_NX);
  expect("fetch, no-execute", call, a, PF, 0x11, a);
  expect("write, writable", write1, a, NO_FAULT, 0, 0);
  map_page(a, page, PTE_P | (1ul << 51));
  u32 r[4];
  cpuid(0x80000008, 0, r);
  if ((r[0] & 0xff) < 52) expect("read, reserved bit", read1, a, PF, 9, a), expect("write, reserved bit", write1, a, PF, 0xb, a);

  print("accessed and dirty\n");
  map_page(a, page, PTE_P | PTE_W);
  read1(a);
  check((*pte_of(a) & (PTE_A | PTE_D)) == PTE_A, "after a read: %lx", *pte_of(a));
  write1(a);
  check((*pte_of(a) & (PTE_A | PTE_D)) == (PTE_A | PTE_D), "after a write to a page whose read is cached: %lx", *pte_of(a));

  print("across pages\n");
  map_page(a, page, PTE_P | PTE_W);
  map_page(a + 4096, 0, 0);
  memset((void *)page, 0, 4096);
  expect("read, second page missing", read8, a + 4093, PF, 0, a + 4096);
  expect("write, second page missing", write8, a + 4093, PF, 2, a + 4096);
  for (int i = 4093; i < 4096; i++) check(((u8 *)page)[i] == 0, "a refused write across pages left a byte");
  map_page(a + 4096, next, PTE_P);
  expect("write, second page read-only", write8, a + 4093, PF, 3, a + 4096);
  map_page(a, 0, 0);
  expect("write, first page missing", write8, a + 4093, PF, 2, a + 4093);
  map_page(a, page, PTE_P | PTE_W);
  map_page(a + 4096, next, PTE_P | PTE_W);
  expect("write across pages", write8, a + 4093, NO_FAULT, 0, 0);
  check(*(u32 *)((u64)page + 4092) == 0x66778800 && *(u64 *)next == 0x1122334455, "a write across pages went wrong");

  print("remapping\n");
  map_page(a, page, PTE_P | PTE_W);
  *(u8 *)page = 1, *(u8 *)next = 2;
  read1(a);
  map_page(a, next, PTE_P | PTE_W);
  check(*(volatile u8 *)a == 2, "INVLPG did not drop the old translation");
  *pte_of(a) = page | PTE_P;
  WRITE_CR(3, READ_CR(3));
  check(*(volatile u8 *)a == 1, "a new CR3 did not drop the old translation");
  WRITE_CR(4, READ_CR(4) | 0x80);
  map_page(a, page, PTE_P | PTE_G);
  read1(a);
  *pte_of(a) = next | PTE_P | PTE_G;
  WRITE_CR(4, READ_CR(4) & ~0x80ul);
  check(*(volatile u8 *)a == 2, "clearing CR4.PGE did not drop a global translation");

  print("user and supervisor\n");
  map_page(REGION + 0x10000, code, PTE_P | PTE_U);
  map_page(REGION + 0x11000, next, PTE_P | PTE_U | PTE_W);
  map_page(a, page, PTE_P | PTE_W);
  expect_user("user read, supervisor page", user_read, sizeof user_read, a, PF, 5);
  expect_user("user write, supervisor page", user_write, sizeof user_write, a, PF, 7);
  expect_user("user fetch, supervisor page, no NX", user_jump, sizeof user_jump, a, PF, 0x15);
  map_page(a, page, PTE_P | PTE_U);
  expect_user("user read, user page", user_read, sizeof user_read, a, USER_EXIT, 0);
  expect_user("user write, read-only page", user_write, sizeof user_write, a, PF, 7);
  map_page(a, page, PTE_P | PTE_U | PTE_NX | PTE_W);
  expect_user("user write, user page", user_write, sizeof user_write, a, USER_EXIT, 0);
  expect_user("user fetch, no-execute", user_jump, sizeof user_jump, a, PF, 0x15);
  expect_user("user read, missing page", user_read, sizeof user_read, a + 0x20000, PF, 4);
  expect_user("user fetch, missing page", user_jump, sizeof user_jump, a + 0x20000, PF, 0x14);

  *(u8 *)page = 0xc3;
  if (has(7, EBX, 7)) {
    print("SMEP\n");
    map_page(a, page, PTE_P | PTE_U);
    expect("supervisor fetch, user page, no SMEP", call, a, NO_FAULT, 0, 0);
    WRITE_CR(4, READ_CR(4) | 1ul << 20);
    expect("supervisor fetch, user page", call, a, PF, 0x11, a);
    expect("supervisor read, user page, SMEP", read1, a, NO_FAULT, 0, 0);
    WRITE_CR(4, READ_CR(4) & ~(1ul << 20));
  } else print("no SMEP\n");
  if (has(7, EBX, 20)) {
    print("SMAP\n");
    map_page(a, page, PTE_P | PTE_U | PTE_W);
    read1(a);
    WRITE_CR(4, READ_CR(4) | 1ul << 21);
    expect("supervisor read, user page", read1, a, PF, 1, a);
    expect("supervisor write, user page", write1, a, PF, 3, a);
    expect("supervisor read, user page, AC set", read1_ac, a, NO_FAULT, 0, 0);
    expect("supervisor read, user page, AC clear again", read1, a, PF, 1, a);
    expect_user("user read, user page, SMAP", user_read, sizeof user_read, a, USER_EXIT, 0);
    WRITE_CR(4, READ_CR(4) & ~(1ul << 21));
    expect("supervisor read, user page, SMAP off", read1, a, NO_FAULT, 0, 0);
  } else print("no SMAP\n");

  print("large pages\n");
  u64 *directory = (u64 *)pds, was = directory[511];       /* 1022 MiB */
  u64 top = 511ul << 21;
  directory[511] = (u64)page >> 21 << 21 | 0x83;
  invlpg(top);
  *(u8 *)page = 0x77;
  check(*(volatile u8 *)(top + (page & 0x1fffff)) == 0x77, "a 2 MiB page maps the wrong frame");
  directory[511] = ((u64)page >> 21 << 21) | 0x81;
  invlpg(top);
  expect("write, read-only 2 MiB page", write1, top + (page & 0x1fffff), PF, 3, top + (page & 0x1fffff));
  directory[511] = ((u64)page >> 21 << 21) | 0x83 | PTE_NX;
  invlpg(top);
  expect("fetch, no-execute 2 MiB page", call, top + (page & 0x1fffff), PF, 0x11, top + (page & 0x1fffff));
  directory[511] = was;
  invlpg(top);
}
