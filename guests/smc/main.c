/*
 * Code that changes code: on its own page, on the next, just ahead of the instruction pointer, through another mapping of the frame,
 * by string instructions and in a loop. An engine that keeps decoded or translated code must notice each. SDM Vol. 3A 11.6 and 8.1.3.
 */
#include "../common/guest.h"

static u8 *code;                         /* two pages, writable and executable */
typedef u32 (*Returns)(void);

/* mov eax, imm32; ret */
static void put_return(u8 *at, u32 v) { at[0] = 0xb8; memcpy(at + 1, &v, 4); at[5] = 0xc3; }

void guest_main(void) {
  code = (u8 *)new_page();
  new_page();

  for (u32 i = 0; i < 2000; i++) {
    put_return(code + 64, i);
    u32 got = ((Returns)(code + 64))();
    if (got != i) { check(false, "same page: round %u gave %u", i, got); break; }
  }
  put_return(code + 64, 0);
  for (u32 i = 0; i < 2000; i++) {                 /* one byte of the immediate only, warm */
    code[65] = i;
    if (((Returns)(code + 64))() != (i & 0xff)) { check(false, "one byte: round %u", i); break; }
  }
  /* the instruction lies across the page boundary, and only its second part changes */
  for (int straddle = 1; straddle < 5; straddle++) {
    u8 *at = code + 4096 - straddle;
    put_return(at, 0x01010101);
    for (u32 i = 0; i < 300; i++) {
      at[4] = i;
      u32 got = ((Returns)at)();
      if (got != (0x010101 | (i & 0xff) << 24)) { check(false, "across pages, %u bytes on the first: round %u gave %x", straddle, i, got); break; }
    }
  }
  /* mov byte [rip+n], 7 changes the immediate of the instruction that follows at once */
  static const u8 ahead[] = { 0x31, 0xc0, 0xc6, 0x05, 1, 0, 0, 0, 7, 0xb0, 1, 0xc3 };     /* xor eax, eax; mov [next + 1], 7; mov al, 1; ret */
  for (int i = 0; i < 200; i++) {
    memcpy(code + 256, ahead, sizeof ahead);
    u32 got = ((Returns)(code + 256))();
    if (got != 7) { check(false, "just ahead: round %d gave %u", i, got); break; }
  }
  /* the same across the page boundary: the store is the last instruction of its page */
  for (int i = 0; i < 200; i++) {
    u8 *at = code + 4096 - 9;
    memcpy(at, ahead, sizeof ahead);
    u32 got = ((Returns)at)();
    if (got != 7) { check(false, "just ahead on the next page: round %d gave %u", i, got); break; }
  }
  /* rep stosb over the instruction after it: nops over "mov al, 1" */
  static const u8 string[] = { 0x31, 0xc0, 0xb0, 0x90, 0xb9, 2, 0, 0, 0, 0x48, 0x8d, 0x3d, 2, 0, 0, 0, 0xf3, 0xaa, 0xb0, 1, 0xc3 };
  for (int i = 0; i < 200; i++) {
    memcpy(code + 512, string, sizeof string);
    u32 got;
    __asm__ volatile("call *%1" : "=a"(got) : "r"(code + 512) : "rcx", "rdi", "memory");
    if (got != 0x90) { check(false, "by a string instruction: round %d gave %x", i, got); break; }
  }
  /* through another linear address of the same frame */
  map_page(REGION, (u64)code, PTE_P | PTE_W);
  map_page(REGION + 4096, (u64)code, PTE_P | PTE_W);
  for (u32 i = 0; i < 2000; i++) {
    put_return((u8 *)REGION + 1024, i);
    if (((Returns)(REGION + 4096 + 1024))() != i || ((Returns)(code + 1024))() != i) { check(false, "through an alias: round %u", i); break; }
  }
  /* a loop whose body rewrites itself: add eax, n with n counted up by the loop */
  static const u8 loop[] = { 0x31, 0xc0, 0xb9, 100, 0, 0, 0, 0x83, 0xc0, 1, 0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x75, 0xf3, 0xc3 };
  memcpy(code + 2048, loop, sizeof loop);
  u32 sum;
  __asm__ volatile("call *%1" : "=a"(sum) : "r"(code + 2048) : "rcx", "memory");
  check(sum == 5050, "a loop that counts up its own immediate: %u", sum);
  /* a frame that held code is mapped elsewhere as data, then comes back as other code */
  u64 other = new_page();
  put_return((u8 *)other, 22);
  put_return(code, 11);
  map_page(REGION, (u64)code, PTE_P);
  check(((Returns)REGION)() == 11, "before remapping");
  map_page(REGION, other, PTE_P);
  check(((Returns)REGION)() == 22, "after remapping to a frame with other code");
  /* a page of data between code: writes beside the code change nothing */
  u64 total = 0;
  for (u32 i = 0; i < 5000; i++) { code[3000 + (i & 63)] = i; total += ((Returns)code)(); }
  check(total == 55000, "data beside code: %lu", total);
}
