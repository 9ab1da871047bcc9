/* No IDT, then an exception: #GP, #DF, shutdown. Ends as a crash that names the triple fault, and in nothing else. */
#include "../common/guest.h"
void guest_main(void) {
  static struct { u16 limit; u64 base; } __attribute__((packed)) none;
  print("about to fault three times\n");
  __asm__ volatile("lidt %0; int3" : : "m"(none));
  check(false, "still here");
}
