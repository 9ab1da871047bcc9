/* SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, FSGSBASE and the MSRs behind them. SDM Vol. 2 and Vol. 3A 5.8.7, 5.8.8. */
#include "../common/guest.h"

u64 saved_rsp, seen[6];
/* Entered by the user's SYSCALL: notes what it finds and returns to the user's rcx, or to the test. */
void syscall_entry(void);
__asm__(
  "syscall_entry:\n"
  "  mov %rsp, seen+0(%rip); mov %rcx, seen+8(%rip); mov %r11, seen+16(%rip)\n"
  "  mov saved_rsp(%rip), %rsp; pushfq; pop seen+24(%rip)\n"
  "  mov %cs, seen+32(%rip); mov %ss, seen+40(%rip)\n"
  "  mov seen+0(%rip), %rsp\n"
  "  sysretq\n"
  "sysenter_entry:\n"
  "  mov %rsp, seen+0(%rip); mov %cs, seen+32(%rip); mov %ss, seen+40(%rip)\n"
  "  pushfq; pop seen+24(%rip)\n"
  "  rex.W sysexit\n");
void sysenter_entry(void);
static const u8 user_syscall[] = { 0x0f, 0x05, 0xcd, 0x80 }, user_sysenter[] = { 0x0f, 0x34, 0xcd, 0x80 }, user_swapgs[] = { 0x0f, 0x01, 0xf8, 0xcd, 0x80 }, user_rdfsbase[] = { 0xf3, 0x48, 0x0f, 0xae, 0xc0, 0xcd, 0x80 };
static u64 page;
static int user(const u8 *code, u64 n, u64 flags, u64 arg) { memcpy((void *)page, code, n); return attempt_user(USER_CS, REGION, REGION + 0x2000 - 8, flags, arg); }
#define USER(code, flags, arg) user(code, sizeof code, flags, arg)

static void expect(const char *what, int got, int want) { check(got == want, "%s: vector %d, not %d", what, got, want); }
static void write_msr(u64 i) { wrmsr(i, 0x800000000000); }
static void read_unknown(u64 i) { rdmsr(i); }
static void wrfsbase(u64 v) { __asm__ volatile("wrfsbase %0" : : "r"(v)); }

void guest_main(void) {
  page = new_page();
  map_page(REGION, page, PTE_P | PTE_U);
  map_page(REGION + 0x1000, new_page(), PTE_P | PTE_U | PTE_W);
  saved_rsp = (u64)ist_stack_top - 8192;

  expect("SYSCALL without EFER.SCE", USER(user_syscall, 0x202, 0), UD);
  wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
  wrmsr(0xc0000081, (u64)(0x18 | 3) << 48 | (u64)KERNEL_CS << 32);
  wrmsr(0xc0000082, (u64)syscall_entry);
  wrmsr(0xc0000084, 0x600);
  expect("SYSCALL and SYSRET", USER(user_syscall, 0x602 | 0x8d5, 0), USER_EXIT);
  check(seen[0] == REGION + 0x2000 - 8, "SYSCALL changed rsp: %lx", seen[0]);
  check(seen[1] == REGION + 2, "rcx is %lx, not the next rip", seen[1]);
  check((seen[2] & 0xed5) == 0xed5, "r11 is %lx, not the flags", seen[2]);
  check((seen[3] & 0x600) == 0, "SFMASK left %lx", seen[3]);
  check((seen[4] & 0xffff) == KERNEL_CS && (seen[5] & 0xffff) == KERNEL_DS, "in the kernel cs %lx ss %lx", seen[4], seen[5]);
  check(outcome.frame.cs == USER_CS && outcome.frame.ss == USER_DS, "after SYSRET cs %lx ss %lx", outcome.frame.cs, outcome.frame.ss);
  check((outcome.frame.rflags & 0xed5) == 0xed5, "after SYSRET flags %lx", outcome.frame.rflags);

  wrmsr(0x174, 0);
  int v0 = USER(user_sysenter, 0x202, 0);          /* not in long mode on AMD's processors */
  check(v0 == GP || v0 == UD, "SYSENTER with a null CS: vector %d", v0);

  u64 gs = 0x1234560000, kernel_gs = 0xffff888000000000;
  wrmsr(0xc0000101, gs);
  wrmsr(0xc0000102, kernel_gs);
  __asm__ volatile("swapgs");
  check(rdmsr(0xc0000101) == kernel_gs && rdmsr(0xc0000102) == gs, "SWAPGS: %lx %lx", rdmsr(0xc0000101), rdmsr(0xc0000102));
  expect("SWAPGS in user mode", USER(user_swapgs, 0x202, 0), GP);
  static const u32 address_msrs[] = { 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000082, 0xc0000083 };
  for (u32 i = 0; i < sizeof address_msrs / 4; i++) check(attempt(write_msr, address_msrs[i]) == GP, "MSR %x takes a non-canonical address", address_msrs[i]);
  expect("an unknown MSR reads", attempt(read_unknown, 0x12345678), GP);

  if (has(7, EBX, 0)) {
    expect("RDFSBASE without CR4.FSGSBASE", USER(user_rdfsbase, 0x202, 0), UD);
    WRITE_CR(4, READ_CR(4) | 0x10000);
    wrmsr(0xc0000100, 0x7654321000);
    expect("RDFSBASE", USER(user_rdfsbase, 0x202, 0), USER_EXIT);
    check(outcome.frame.rax == 0x7654321000, "RDFSBASE gave %lx", outcome.frame.rax);
    expect("WRFSBASE takes a non-canonical address", attempt(wrfsbase, 0x8000000000000000), GP);
    wrfsbase((u64)&page);
    u64 v;
    __asm__ volatile("mov %%fs:0, %0" : "=r"(v));
    check(v == page, "an access through FS: %lx", v);
  }
  static u64 probe = 0x5555aaaa;
  wrmsr(0xc0000101, (u64)&probe - 0x100);
  u64 v;
  __asm__ volatile("mov %%gs:0x100, %0" : "=r"(v));
  check(v == probe, "an access through GS: %lx", v);
  __asm__ volatile("mov %0, %%gs" : : "r"(KERNEL_DS));
  check(rdmsr(0xc0000101) == 0, "loading GS leaves its base at %lx", rdmsr(0xc0000101));
}
