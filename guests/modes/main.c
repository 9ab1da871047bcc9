/*
 * Mode switches: from long mode through compatibility, protected and real mode and back, with what is particular to each: operand
 * sizes, segment limits, two-level and PAE paging, the real-mode vector table. SDM Vol. 3A 9.8, 9.9, ch. 5; kernels start that way.
 */
#include "../common/guest.h"
#include "modes.h"

void mode_trip(void);
extern char low[], low_end[], with_error[], without_error[];
extern u32 directory32[1024];
extern u64 pointers32[4];
struct pointer { u16 limit; u64 base; } __attribute__((packed));
extern struct pointer saved_idt, idt32_pointer;
static u64 idt32[32];

static const struct { int n; u32 mask, want; const char *what; } wanted[] = {
  { COMPAT_INC, ~0u, 2, "compatibility: 0x40 is INC" },
  { COMPAT_PUSHA, ~0u, 32, "compatibility: PUSHA pushes 32 bytes" },
  { COMPAT_AAA, ~0u, 0x0105, "AAA" },
  { COMPAT_DAA, 0xff, 0x14, "DAA" },
  { COMPAT_AAM, ~0u, 0x0c03, "AAM" },
  { COMPAT_AAD, ~0u, 123, "AAD" },
  { COMPAT_WRAP, ~0u, 0x13572468, "compatibility: an address wraps at 4 GiB" },
  { COMPAT_LES, ~0u, 0x11223344, "compatibility: LES" },
  { PROTECTED_EFER, 0x500, 0x100, "EFER.LMA is clear without paging, LME stays" },
  { LIMIT_INSIDE, ~0u, 0xcafe, "the last bytes below the limit" },
  { LIMIT_BEYOND, ~0u, 1, "#GP across the limit" },
  { DOWN_BELOW, ~0u, 1, "#GP below an expand-down segment" },
  { DOWN_INSIDE, ~0u, 0xbeef, "the first byte of an expand-down segment" },
  { NULL_SEGMENT, ~0u, 1, "#GP through a null selector" },
  { WRITE_CODE, ~0u, 1, "#GP on a write through CS" },
  { BEYOND_GDT, ~0u, 1, "#GP for a selector beyond the GDT" },
  { BEYOND_GDT_ERROR, ~0u, 0x1000, "its error code" },
  { PAGING_2, ~0u, 0x600d, "a 4 MiB page" },
  { PAGING_2_FAULT, ~0u, 1, "#PF in two-level paging" },
  { PAGING_2_CR2, ~0u, 101u << 22, "its CR2" },
  { PAGING_PAE, ~0u, 0x600d, "PAE paging" },
  { P16_CARRY, 0xffff, 0xffff, "protected 16: a 16-bit sum carries" },
  { P16_PUSH, 0xffff, 2, "protected 16: PUSH moves SP by 2" },
  { P16_DWORD, ~0u, 0x12345678, "protected 16: 32-bit operand" },
  { P16_LEA, 0xffff, RESULTS + 4 * P16_WRAP, "protected 16: addresses wrap at 64 KiB" },
  { REAL_INT, ~0u, 0x5150, "real mode: INT through the vector table" },
  { REAL_DIVIDE, ~0u, 0xd1f, "real mode: #DE points at the DIV" },
  { REAL_SEGMENT, ~0u, 0xabcd1234, "real mode: segment times 16" },
  { REAL_CS, 0xffff, 0, "real mode: CS" },
  { REAL_FLAGS, 0x8002, 2, "real mode: PUSHF" },
  { REAL_SP, 0xffff, 0x7000, "real mode: IRET takes three words" },
  { REAL_LOOP, 0xffff, 15, "real mode: LOOP" },
};

void guest_main(void) {
  memcpy((void *)LOW, low, low_end - low);
  for (u32 i = 0; i < 1024; i++) directory32[i] = i << 22 | 0x83;
  directory32[100] = 0x83;
  directory32[101] = 0;
  for (u64 i = 0; i < 4; i++) pointers32[i] = ((u64)pds + 4096 * i) | 1;
  for (int v = 0; v < 32; v++) {
    u64 h = v == 8 || (v >= 10 && v <= 14) || v == 17 ? (u64)with_error : (u64)without_error;
    idt32[v] = (h & 0xffff) | (u64)CODE32 << 16 | 0x8eul << 40 | (h >> 16) << 48;
  }
  idt32_pointer = (struct pointer){ sizeof idt32 - 1, (u64)idt32 };
  __asm__ volatile("sidt %0" : "=m"(saved_idt));
  gdt[SPARE_SELECTOR / 8] = 0x0040920000000fff | (u64)LOW_DATA << 16;
  gdt[SPARE_SELECTOR / 8 + 1] = 0x0040960000000fff | (u64)LOW_DATA << 16;
  volatile u32 *results = (u32 *)(u64)RESULTS;
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 40; i++) results[i] = 0xeeeeeeee;
    mode_trip();
    for (u32 i = 0; i < sizeof wanted / sizeof *wanted; i++) {
      u32 got = results[wanted[i].n] & wanted[i].mask;
      check(got == wanted[i].want, "%s: %x, not %x", wanted[i].what, got, wanted[i].want);
    }
    check(results[REAL_HIGH] == *(u32 *)0x100000, "real mode: segment 0xffff reaches the second megabyte: %x", results[REAL_HIGH]);
  }
}
