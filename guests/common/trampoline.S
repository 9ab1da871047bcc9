/* Where a processor starts that got INIT and SIPI: copied to TRAMPOLINE, real mode, to long mode with the first processor's tables, on a stack by its APIC id, to smp_main(id). */
#define __ASSEMBLY__
#include "guest.h"
#define TRAMPOLINE 0x8000
#define AT(label) (TRAMPOLINE + (label) - trampoline)
  .text
  .globl trampoline, trampoline_end
  .code16
trampoline:
  cli
  xor %ax, %ax
  mov %ax, %ds
  lgdtl AT(pointer)
  mov %cr0, %eax
  or $1, %al
  mov %eax, %cr0
  ljmpl $CODE32, $AT(protected)
  .code32
protected:
  mov $KERNEL_DS, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $0x620, %eax               /* PAE OSFXSR OSXMMEXCPT */
  mov %eax, %cr4
  LONG_MODE
  ljmp $KERNEL_CS, $smp_entry
pointer:
  .word 0x57
  .long gdt
trampoline_end:
  .code64
smp_entry:
  mov $1, %eax
  cpuid
  shr $24, %ebx
  shr $1, %ebx                   /* APIC ids are two apart */
  mov %ebx, %edi
  shl $13, %ebx
  lea smp_stacks + 8192(%rbx), %rsp
  xor %ebp, %ebp
  call smp_main
  ud2
  .bss
  .align 4096
smp_stacks: .skip 32 * 8192
