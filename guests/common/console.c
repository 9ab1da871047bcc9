/* Text and results: through Xen's console when there is a Xen, else the serial port, port 0xe9 and QEMU's debug-exit device. */
#include <stdarg.h>
#include "guest.h"

static int nr_failures;
static char line[256];
static u32 used;

static void flush(void) {
  if (xen_base) xen_console_write(line, used);
  else for (u32 i = 0; i < used; i++) {
    for (int spin = 0; spin < 10000 && !(inb(0x3fd) & 0x20); spin++) ;
    outb(0x3f8, line[i]);
  }
  used = 0;
}
static void put(char c) {
  if (c == '\n') { line[used++] = '\r'; }
  line[used++] = c;
  if (c == '\n' || used >= sizeof line - 2) flush();
}
static void put_number(u64 v, u32 base, int width, char pad) {
  char digits[24];
  int n = 0;
  do digits[n++] = "0123456789abcdef"[v % base]; while (v /= base);
  while (width-- > n) put(pad);
  while (n) put(digits[--n]);
}
static void vprint(const char *f, va_list list) {
  for (; *f; f++) {
    if (*f != '%') { put(*f); continue; }
    int width = 0, wide = 0;
    char pad = ' ';
    if (*++f == '0') pad = '0';
    for (; *f >= '0' && *f <= '9'; f++) width = width * 10 + *f - '0';
    for (; *f == 'l'; f++) wide = 1;
    switch (*f) {
      case 's': for (const char *s = va_arg(list, const char *); *s; s++) put(*s); break;
      case 'c': put(va_arg(list, int)); break;
      case 'd': { s64 v = wide ? va_arg(list, s64) : va_arg(list, int); if (v < 0) put('-'), v = -v; put_number(v, 10, width, pad); break; }
      case 'u': put_number(wide ? va_arg(list, u64) : va_arg(list, u32), 10, width, pad); break;
      case 'x': put_number(wide ? va_arg(list, u64) : va_arg(list, u32), 16, width, pad); break;
      case 'p': put_number(va_arg(list, u64), 16, 16, '0'); break;
      default: put('%'); put(*f);
    }
  }
}
void print(const char *format, ...) { va_list list; va_start(list, format); vprint(format, list); va_end(list); }
void check(bool ok, const char *format, ...) {
  if (ok) return;
  nr_failures++;
  va_list list;
  va_start(list, format);
  print("Failed: ");
  vprint(format, list);
  print("\n");
  va_end(list);
}

void power_off(void) {
  struct { u32 reason; } shutdown = { 0 };      /* SHUTDOWN_poweroff */
  if (xen_base) hypercall(29, 2, (u64)&shutdown, 0, 0, 0);
  outb(0xf4, 0);
  for (;;) __asm__ volatile("cli; hlt");
}
static void result(const char *word) {
  print("Test result: %s\n", word);
  if (!xen_base) outb(0xf4, nr_failures ? 1 : 0);
  power_off();
}
void skip(const char *reason) { print("%s\n", reason); result("SKIP"); for (;;) ; }
void finish(void) { result(nr_failures ? "FAILURE" : "SUCCESS"); for (;;) ; }

/* On a PC: the interrupt controllers away from the exceptions' vectors, masked; what they had latched is passed over. */
static void pass_over(struct frame *f) { (void)f; }
static void quiet_pic(void) {
  static const u8 init[] = { 0x11, 0xe0, 4, 1, 0xff, 0x11, 0xe8, 2, 1, 0xff };
  for (int i = 0; i < 10; i++) outb((i < 5 ? 0x20 : 0xa0) + (i % 5 != 0), init[i]);
  for (int v = 0xe0; v < 0xf0; v++) on_interrupt(v, pass_over);
}

void guest_start(void) {
  void memory_init(void);
  memory_init();
  load_idt();
  xen_init();
  if (!xen_base) quiet_pic();
  guest_main();
  finish();
}
