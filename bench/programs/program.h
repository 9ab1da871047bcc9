/* What every program here has: one function that does a fixed amount of integer work and returns a digest of it. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;
#define NOINLINE __attribute__((noinline, noclone))

NOINLINE u64 run(void);

/* A linear congruential sequence modulo 2^64 (Knuth's MMIX constants); its high half is good enough as data. */
static inline u32 next(u64 *seed) {
  *seed = *seed * 6364136223846793005ul + 1442695040888963407ul;
  return (u32)(*seed >> 32);
}
