/* A walk through a linked list of 30,000 nodes (1 MiB) in an order that caches and TLBs do not like. */
#include "program.h"

#define NR 30000
static struct Node { struct Node *next; u64 value, padding[2]; } nodes[NR];
static u32 order[NR];

u64 run(void) {
  u64 seed = 6, digest = 0;
  for (u32 i = 0; i < NR; i++) order[i] = i;
  for (u32 i = NR - 1; i > 0; i--) {
    u32 j = next(&seed) % (i + 1), t = order[i];
    order[i] = order[j];
    order[j] = t;
  }
  for (u32 i = 0; i < NR; i++) {
    nodes[order[i]].next = &nodes[order[(i + 1) % NR]];
    nodes[order[i]].value = i;
  }
  const struct Node *at = nodes;
  for (u32 i = 0; i < 40 * NR; i++) {
    digest = (digest << 1 | digest >> 63) + at->value;
    at = at->next;
  }
  return digest;
}
