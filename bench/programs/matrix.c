/* A product of two 160 x 160 matrices of 32-bit integers, the plain way: three loops, one strided access. */
#include "program.h"

#define N 160
static u32 a[N][N], b[N][N], c[N][N];

u64 run(void) {
  u64 seed = 5, digest = 0;
  for (u32 i = 0; i < N; i++) for (u32 j = 0; j < N; j++) { a[i][j] = next(&seed); b[i][j] = next(&seed); }
  for (int round = 0; round < 3; round++) {
    for (u32 i = 0; i < N; i++)
      for (u32 j = 0; j < N; j++) {
        u32 sum = 0;
        for (u32 k = 0; k < N; k++) sum += a[i][k] * b[k][j];
        c[i][j] = sum;
      }
    for (u32 i = 0; i < N; i++) for (u32 j = 0; j < N; j++) { digest = digest * 31 + c[i][j]; a[i][j] ^= c[j][i]; }
  }
  return digest;
}
