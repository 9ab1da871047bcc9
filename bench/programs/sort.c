/* A merge sort of 200,000 numbers that asks a callback for each comparison. */
#include "program.h"

#define NR 200000
typedef int (*Order)(const u32 *, const u32 *);
static u32 numbers[NR], spare[NR];

NOINLINE static int ascending(const u32 *a, const u32 *b) { return *a < *b ? -1 : *a > *b; }

NOINLINE static void merge_sort(u32 *v, u32 nr, Order order) {
  if (nr < 2) return;
  u32 half = nr / 2, i = 0, j = half, k = 0;
  merge_sort(v, half, order);
  merge_sort(v + half, nr - half, order);
  while (i < half && j < nr) spare[k++] = order(v + i, v + j) <= 0 ? v[i++] : v[j++];
  while (i < half) spare[k++] = v[i++];
  for (u32 n = 0; n < k; n++) v[n] = spare[n];
}

u64 run(void) {
  u64 seed = 3, digest = 0;
  Order volatile order = ascending;
  for (u32 i = 0; i < NR; i++) numbers[i] = next(&seed);
  merge_sort(numbers, NR, order);
  for (u32 i = 0; i < NR; i++) {
    if (i && numbers[i] < numbers[i - 1]) return 0;
    digest = digest * 31 + numbers[i];
  }
  return digest;
}
