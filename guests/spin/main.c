/* A guest that spins for ever with interrupts off: the hypervisor must stay able to run others and to destroy it. */
#include "../common/guest.h"
void guest_main(void) {
  print("spinning\n");
  cli();
  for (;;) __asm__ volatile("");
}
