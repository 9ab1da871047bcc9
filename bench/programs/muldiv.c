/* 64-bit multiplications, 128-bit products and divisions: powers modulo a 61-bit prime, greatest common divisors. */
#include "program.h"

NOINLINE static u64 multiply_modulo(u64 a, u64 b) {
  const u64 prime = (1ul << 61) - 1;
  unsigned __int128 product = (unsigned __int128)a * b;
  u64 r = (u64)(product & prime) + (u64)(product >> 61);
  return r >= prime ? r - prime : r;
}

NOINLINE static u64 divisor(u64 a, u64 b) {
  while (b) { u64 t = a % b; a = b; b = t; }
  return a;
}

u64 run(void) {
  u64 seed = 7, digest = 0;
  for (u32 i = 0; i < 40000; i++) {
    u64 base = (u64)next(&seed) << 20 | i, power = 1;
    for (u64 exponent = (u64)next(&seed) << 24 | 1; exponent; exponent >>= 1) {
      if (exponent & 1) power = multiply_modulo(power, base);
      base = multiply_modulo(base, base);
    }
    digest = digest * 31 + power;
    digest += divisor((u64)next(&seed) << 24 | 6, (u64)next(&seed) << 20 | 4);
    digest ^= (u64)((i64)digest / (i64)((next(&seed) >> 8) + 1));
  }
  return digest;
}
