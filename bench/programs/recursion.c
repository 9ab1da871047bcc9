/* Calls and returns: Ackermann's function and the placements of eleven queens. */
#include "program.h"

NOINLINE static u64 ackermann(u64 m, u64 n) {
  if (m == 0) return n + 1;
  if (n == 0) return ackermann(m - 1, 1);
  return ackermann(m - 1, ackermann(m, n - 1));
}

NOINLINE static u32 queens(u32 columns, u32 left, u32 right, u32 all) {
  if (columns == all) return 1;
  u32 found = 0;
  for (u32 free = all & ~(columns | left | right); free; free &= free - 1) {
    u32 bit = free & -free;
    found += queens(columns | bit, (left | bit) << 1, (right | bit) >> 1, all);
  }
  return found;
}

u64 run(void) {
  volatile u32 all = 0x7ff;
  u64 digest = 0;
  for (u32 i = 0; i < 4; i++) digest = digest * 31 + queens(0, 0, 0, all) + i;
  return digest << 16 ^ ackermann(2, 300) ^ ackermann(3, 8);
}
