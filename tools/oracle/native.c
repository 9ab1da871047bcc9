/*
 * Native truth for instructions: runs cases of user-mode code on this machine's own processor.
 *
 * A batch on standard input (see format.ts, which holds the same offsets): a header with the contents of the data window, then
 * cases. Each case's code is copied to the code pages and followed by a jump out; registers, flags and the x87/SSE state are
 * loaded, the code runs, the state is stored. A fault is caught on an alternate stack with the registers at the faulting
 * instruction. Answers go to standard output in the same order. End of input ends the program.
 *
 * This file is a position-independent program, so that nothing of it lies below 4 GiB: a wild 32-bit address hits a hole.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define WINDOW 0x10000000ul
#define WINDOW_BYTES 8192
#define CODE 0x20000000ul
#define CODE_BYTES 8192
#define CODE_MAX 80
#define STUB 0x70ff0000ul                /* where 32-bit code can jump to: on into 64-bit mode */
#define USER32_CS 0x23
#define USER_CS 0x33
#define CHANGES 28
#define NO_TRAP 0xffffffffu
#define TRAP_TIMEOUT 0xfffffffeu

struct batch { uint32_t magic, nr_cases, pad[14]; uint8_t window[WINDOW_BYTES]; };
struct acase {
  uint32_t code_len, code_offset;
  uint64_t rflags, gpr[16];
  uint8_t code[CODE_MAX];
  uint32_t patch_offset, patch_len;
  uint8_t patch[128];
  uint32_t compat;                       /* 32-bit code in compatibility mode */
  uint8_t pad[512 - 364];
  uint8_t fx[512];
};
struct result {
  uint32_t trap, error_code;
  uint64_t cr2, gpr[16], rip, rflags;
  uint32_t nr_changes, hash;
  uint64_t value[CHANGES];
  uint16_t index[CHANGES];
  uint8_t pad[512 - 448];
  uint8_t fx[512];
};
_Static_assert(sizeof(struct acase) == 1024 && sizeof(struct result) == 1024, "format");

/* Reached from the assembly, relative to rip. */
uint64_t in_gpr[16], in_flags, in_entry, in_compat, out_gpr[16], out_flags, host_rsp;
uint8_t out_fx[512] __attribute__((aligned(64)));
uint32_t default_mxcsr = 0x1f80;
struct { uint32_t offset; uint16_t selector; } __attribute__((packed)) far_entry = { 0, USER32_CS };
void run_case(const void *fx);
void leave_case(void);
void abandon_case(void) __attribute__((noreturn));

__asm__(
  ".text\n"
  "run_case:\n"
  "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
  "  mov %rsp, host_rsp(%rip)\n"
  "  fxrstor64 (%rdi)\n"
  "  cmpq $0, in_compat(%rip)\n"
  "  push in_flags(%rip)\n"
  "  jne 1f\n"
  "  popfq\n"
#define EACH(op) op(0, rax) op(1, rcx) op(2, rdx) op(3, rbx) op(5, rbp) op(6, rsi) op(7, rdi) op(8, r8) op(9, r9) op(10, r10) op(11, r11) op(12, r12) op(13, r13) op(14, r14) op(15, r15) op(4, rsp)
#define LOAD(i, r) "  mov in_gpr+8*" #i "(%rip), %" #r "\n"
#define STORE(i, r) "  mov %" #r ", out_gpr+8*" #i "(%rip)\n"
  EACH(LOAD)
  "  jmp *in_entry(%rip)\n"
  "1: mov $0x2b, %eax; mov %eax, %ds; mov %eax, %es\n"
  "  popfq\n"
  EACH(LOAD)
  "  ljmp *far_entry(%rip)\n"
  "leave_case:\n"
  EACH(STORE)
  "  mov host_rsp(%rip), %rsp\n"
  "  pushfq; pop out_flags(%rip)\n"
  "  push $0x202; popfq\n"
  "  fxsave64 out_fx(%rip)\n"
  "abandon_case:\n"
  "  mov host_rsp(%rip), %rsp\n"
  "  cld; fninit; ldmxcsr default_mxcsr(%rip)\n"
  "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
  "  ret\n");

static volatile int running;
static volatile uint32_t present, seen = NO_TRAP;
static struct result *volatile answer;

static void store_context(const ucontext_t *uc, uint32_t trap) {
  static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
  const greg_t *g = uc->uc_mcontext.gregs;
  struct result *r = answer;
  for (int i = 0; i < 16; i++) r->gpr[i] = g[order[i]];
  r->trap = trap, r->error_code = g[REG_ERR], r->cr2 = g[REG_CR2], r->rip = g[REG_RIP], r->rflags = g[REG_EFL];
  memcpy(r->fx, uc->uc_mcontext.fpregs, 416);
  running = 0;
  abandon_case();
}

static void on_fault(int sig, siginfo_t *si, void *context) {
  const ucontext_t *uc = context;
  __asm__ volatile("push $0x202; popfq" : : : "cc");
  if (!running) {
    fprintf(stderr, "signal %d in the harness at rip %llx\n", sig, (unsigned long long)uc->uc_mcontext.gregs[REG_RIP]);
    _exit(70);
  }
  (void)si;
  store_context(uc, uc->uc_mcontext.gregs[REG_TRAPNO]);
}

/* An endless case: the same one at two ticks, and inside the code pages. */
static void on_tick(int sig, siginfo_t *si, void *context) {
  (void)sig, (void)si;
  const ucontext_t *uc = context;
  uint64_t rip = uc->uc_mcontext.gregs[REG_RIP];
  if (running && seen == present && rip >= CODE && rip < CODE + CODE_BYTES) store_context(uc, TRAP_TIMEOUT);
  seen = running ? present : NO_TRAP;
}

static void *fixed(uint64_t at, size_t size, int prot) {
  void *p = mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (p != (void *)at) { perror("mmap of a fixed address"); exit(71); }
  return p;
}

static int read_all(void *to, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = read(0, (char *)to + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return 0;
    done += n;
  }
  return 1;
}
static void write_all(const void *from, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = write(1, (const char *)from + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) exit(72);
    done += n;
  }
}

/* What the case changed in the window: the first CHANGES words, and a hash over all of them; then the window is as it was. */
static void store_changes(struct result *r, const uint64_t *was) {
  uint64_t *now = (uint64_t *)WINDOW;
  uint32_t n = 0, h = 0x811c9dc5;
  for (uint32_t i = 0; i < WINDOW_BYTES / 8; i++) {
    if (now[i] == was[i]) continue;
    if (n < CHANGES) r->value[n] = now[i], r->index[n] = i;
    h = (h ^ i) * 0x01000193, h = (h ^ (uint32_t)now[i]) * 0x01000193, h = (h ^ (uint32_t)(now[i] >> 32)) * 0x01000193;
    n++;
    now[i] = was[i];
  }
  r->nr_changes = n, r->hash = h;
}

int main(void) {
  static struct batch b;
  static uint64_t was[WINDOW_BYTES / 8];
  uint8_t *window = fixed(WINDOW, WINDOW_BYTES, PROT_READ | PROT_WRITE);
  uint8_t *code = fixed(CODE, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
  memset(code, 0xcc, CODE_BYTES);
  uint8_t *stub = fixed(STUB, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
  static const uint8_t jump[6] = { 0xff, 0x25 };                  /* jmp [rip]; then the address */
  uint64_t out = (uint64_t)leave_case;
  memcpy(stub, jump, 6), memcpy(stub + 6, &out, 8);
  syscall(SYS_arch_prctl, ARCH_SET_GS, WINDOW);
  stack_t alternate = { .ss_sp = malloc(256 << 10), .ss_size = 256 << 10 };
  sigaltstack(&alternate, 0);
  struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
  static const int faults[] = { SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP };
  for (int i = 0; i < 5; i++) sigaction(faults[i], &fault, 0);
  struct sigaction tick = { .sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART };
  sigaction(SIGALRM, &tick, 0);
  struct itimerval every = { { 0, 50000 }, { 0, 50000 } };
  setitimer(ITIMER_REAL, &every, 0);

  struct acase *cases = 0;
  struct result *results = 0;
  uint32_t room = 0;
  while (read_all(&b, sizeof b)) {
    if (b.magic != 0x4c43524f || b.nr_cases > 1 << 20) { fprintf(stderr, "bad batch header\n"); return 73; }
    if (b.nr_cases > room) {
      room = b.nr_cases;
      cases = mmap(0, (size_t)room * sizeof *cases, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      results = mmap(0, (size_t)room * sizeof *results, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (cases == MAP_FAILED || results == MAP_FAILED) { perror("mmap"); return 71; }
    }
    if (!read_all(cases, (size_t)b.nr_cases * sizeof *cases)) return 73;
    memcpy(window, b.window, WINDOW_BYTES);
    for (uint32_t i = 0; i < b.nr_cases; i++) {
      const struct acase *c = &cases[i];
      struct result *r = &results[i];
      if (c->code_len > CODE_MAX || c->code_offset > CODE_BYTES - CODE_MAX - 16 || c->patch_len > 128 || c->patch_offset > WINDOW_BYTES - c->patch_len) {
        fprintf(stderr, "bad case %u\n", i);
        return 73;
      }
      memset(r, 0, sizeof *r);
      memcpy(was, b.window, WINDOW_BYTES);
      if (c->patch_len) memcpy((uint8_t *)was + c->patch_offset, c->patch, c->patch_len), memcpy(window + c->patch_offset, c->patch, c->patch_len);
      uint8_t *at = code + c->code_offset, *end = at + c->code_len;
      memcpy(at, c->code, c->code_len);
      static const uint8_t far_jump[7] = { 0xea, STUB & 0xff, STUB >> 8 & 0xff, STUB >> 16 & 0xff, STUB >> 24, USER_CS, 0 };
      if (c->compat) memcpy(end, far_jump, 7);
      else memcpy(end, jump, 6), memcpy(end + 6, &out, 8);
      in_compat = c->compat, far_entry.offset = (uint32_t)(uint64_t)at;
      memcpy(in_gpr, c->gpr, sizeof in_gpr);
      in_flags = c->rflags, in_entry = (uint64_t)at;
      present = i, answer = r;
      r->trap = NO_TRAP;
      __asm__ volatile("" ::: "memory");
      running = 1;
      run_case(c->fx);
      __asm__ volatile("" ::: "memory");
      if (running) {
        running = 0;
        memcpy(r->gpr, out_gpr, sizeof out_gpr);
        r->rflags = out_flags, r->rip = (uint64_t)end;
        memcpy(r->fx, out_fx, 416);
      }
      store_changes(r, was);
      if (c->patch_len) memcpy(window + c->patch_offset, b.window + c->patch_offset, c->patch_len);
      memset(at, 0xcc, c->code_len + 14);
    }
    write_all(results, (size_t)b.nr_cases * sizeof *results);
  }
  return 0;
}
