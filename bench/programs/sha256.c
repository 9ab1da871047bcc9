/* SHA-256 (FIPS 180-4) over 2 MiB: rotates, additions, a table. The round constants are computed: fractional bits of cube roots of primes. */
#include "program.h"

static u32 constant[64];
static u32 state[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
static u8 block[64];

/* floor(cube root of p * 2^96) modulo 2^32, found bit by bit. */
static u32 cube_root_fraction(u32 p) {
  unsigned __int128 target = (unsigned __int128)p << 96;
  u64 root = 0;
  for (int bit = 35; bit >= 0; bit--) {
    u64 t = root | 1ul << bit;
    if ((unsigned __int128)t * t * t <= target) root = t;
  }
  return (u32)root;
}

static u32 rotr(u32 x, int n) { return x >> n | x << (32 - n); }

NOINLINE static void compress(u32 h[8], const u8 *bytes) {
  u32 w[64], v[8];
  for (int i = 0; i < 16; i++) w[i] = (u32)bytes[4 * i] << 24 | (u32)bytes[4 * i + 1] << 16 | (u32)bytes[4 * i + 2] << 8 | bytes[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    u32 s0 = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3, s1 = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  for (int i = 0; i < 8; i++) v[i] = h[i];
  for (int i = 0; i < 64; i++) {
    u32 s1 = rotr(v[4], 6) ^ rotr(v[4], 11) ^ rotr(v[4], 25), choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
    u32 t1 = v[7] + s1 + choice + constant[i] + w[i];
    u32 s0 = rotr(v[0], 2) ^ rotr(v[0], 13) ^ rotr(v[0], 22), majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
    for (int k = 7; k > 0; k--) v[k] = v[k - 1];
    v[4] += t1;
    v[0] = t1 + s0 + majority;
  }
  for (int i = 0; i < 8; i++) h[i] += v[i];
}

u64 run(void) {
  u32 h[8], nr = 0;
  for (u32 p = 2; nr < 64; p++) {
    u32 q = 2;
    while (q * q <= p && p % q) q++;
    if (q * q > p) constant[nr++] = cube_root_fraction(p);
  }
  u64 seed = 1;
  for (int i = 0; i < 64; i++) block[i] = (u8)next(&seed);
  for (int i = 0; i < 8; i++) h[i] = state[i];
  for (int i = 0; i < 32768; i++) { block[i & 63] ^= (u8)h[0]; compress(h, block); }
  return (u64)h[0] << 32 | h[1];
}
