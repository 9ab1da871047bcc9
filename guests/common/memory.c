/* Pages, a mapped region of 4 KiB pages, and the command line. */
#include "guest.h"

static u64 next_page;
static u64 *tables[2];

void memory_init(void) { next_page = ((u64)image_end + 4095) & ~4095ul; }
u64 new_page(void) {
  u64 page = next_page;
  next_page += 4096;
  memset((void *)page, 0, 4096);
  return page;
}
u64 *pte_of(u64 address) {
  u32 i = (address - REGION) >> 12;
  if (!tables[0]) {
    u64 l3 = new_page(), l2 = new_page();
    ((u64 *)pml4)[1] = l3 | 7;
    *(u64 *)l3 = l2 | 7;
    for (int k = 0; k < 2; k++) tables[k] = (u64 *)new_page(), ((u64 *)l2)[k] = (u64)tables[k] | 7;
  }
  return &tables[i >> 9 & 1][i & 511];
}
void map_page(u64 address, u64 frame, u64 rights) { *(volatile u64 *)pte_of(address) = frame | rights; invlpg(address); }

void *memcpy(void *to, const void *from, u64 n) { void *d = to; __asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory"); return to; }
void *memset(void *to, int c, u64 n) { void *d = to; __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory"); return to; }

/* struct hvm_start_info: magic, version, flags, nr_modules, modlist_paddr, cmdline_paddr */
const char *command_line(void) {
  u64 info = start_info_address;
  if (!info || *(u32 *)info != 0x336ec578) return "";
  u64 text = *(u64 *)(info + 24);
  return text ? (const char *)text : "";
}
u64 option(const char *name, u64 otherwise) {
  for (const char *p = command_line(); *p; p++) {
    const char *a = p, *b = name;
    while (*b && *a == *b) a++, b++;
    if (*b || *a != '=') continue;
    u64 v = 0;
    for (a++; *a >= '0' && *a <= '9'; a++) v = v * 10 + *a - '0';
    return v;
  }
  return otherwise;
}
