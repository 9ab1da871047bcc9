/*
 * The host's own floating-point unit as an oracle: reads records of 512 bytes from stdin, runs the one instruction each holds on the
 * state it holds, and writes the record back with what became of it. Build: gcc -O1 -mno-red-zone.
 *
 *   0  u8  in: 0 x87, 1 SSE; out: 0 done, else the signal's number
 *   1  u8  length of the instruction
 *   2  14 bytes of instruction; memory operands are [rdi + disp32], where rdi is the record
 *  16  u64 rflags   24 u32 mxcsr   32 u64 rax   40 u64 rcx (source)   48 u64 mm0   56 u64 mm1 (source)
 *  64  x87: the 108 bytes of FNSAVE; SSE: xmm0, xmm1
 * 192  memory operand, up to 108 bytes
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static sigjmp_buf back;
static uint32_t trapped_mxcsr;

static void trap(int sig, siginfo_t *info, void *context) {
  (void)info;
  ucontext_t *uc = context;
  trapped_mxcsr = uc->uc_mcontext.fpregs->mxcsr;
  siglongjmp(back, sig);
}

static void run_x87(unsigned char *rec, void *code) {
  __asm__ volatile(
      "fninit\n frstor 64(%0)\n pushq 16(%0)\n popfq\n movq 32(%0), %%rax\n call *%1\n"
      "pushfq\n popq 16(%0)\n movq %%rax, 32(%0)\n fnsave 64(%0)\n"
      : : "D"(rec), "S"(code) : "rax", "rcx", "memory", "cc");
}

static void run_sse(unsigned char *rec, void *code) {
  uint32_t usual = 0x1f80;
  __asm__ volatile(
      "fninit\n movq 48(%0), %%mm0\n movq 56(%0), %%mm1\n movups 64(%0), %%xmm0\n movups 80(%0), %%xmm1\n movq 40(%0), %%rcx\n"
      "movq 32(%0), %%rax\n ldmxcsr 24(%0)\n pushq 16(%0)\n popfq\n call *%1\n"
      "pushfq\n popq 16(%0)\n stmxcsr 24(%0)\n ldmxcsr %2\n movq %%rax, 32(%0)\n movups %%xmm0, 64(%0)\n movq %%mm0, 48(%0)\n emms\n"
      : : "D"(rec), "S"(code), "m"(usual) : "rax", "rcx", "xmm0", "xmm1", "memory", "cc");
}

int main(void) {
  static unsigned char rec[512];
  unsigned char *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct sigaction sa = {.sa_sigaction = trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
  if (code == MAP_FAILED) { perror("mmap"); return 1; }
  sigaction(SIGFPE, &sa, 0);
  sigaction(SIGILL, &sa, 0);
  sigaction(SIGSEGV, &sa, 0);
  while (fread(rec, sizeof rec, 1, stdin) == 1) {
    memcpy(code, rec + 2, rec[1]);
    code[rec[1]] = 0xc3;
    int kind = rec[0], sig = sigsetjmp(back, 1);
    rec[0] = sig;
    if (sig) {
      if (kind) memcpy(rec + 24, &trapped_mxcsr, 4);
      uint32_t usual = 0x1f80;
      __asm__ volatile("fninit\n ldmxcsr %0" : : "m"(usual));
    } else if (kind) {
      run_sse(rec, code);
    } else {
      run_x87(rec, code);
    }
    fwrite(rec, sizeof rec, 1, stdout);
  }
  return 0;
}
