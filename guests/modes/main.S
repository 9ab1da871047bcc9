/*
 * The round trip: long mode, compatibility 32, protected 32 without paging, with two-level and with PAE paging, protected 16, real
 * mode, and back. Each stage leaves values at RESULTS for main.c to judge. Code that 16-bit segments must reach is copied to LOW.
 */
#define __ASSEMBLY__
#include "../common/guest.h"
#include "modes.h"
#define NOTE(n, reg) mov reg, RESULTS + 4 * n
#define IN_LOW(label) (label - low + LOW)

  .text
  .globl mode_trip
mode_trip:
  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
  mov %rsp, saved_rsp
  pushq $CODE32
  pushq $compatibility
  lretq

  .code32
compatibility:
  mov $KERNEL_DS, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $1, %eax
  .byte 0x40                            /* inc eax here, a prefix in 64-bit mode */
  NOTE(COMPAT_INC, %eax)
  mov %esp, %ebx
  pusha
  mov %esp, caught_vector
  popa
  sub caught_vector, %ebx
  NOTE(COMPAT_PUSHA, %ebx)
  mov $0x000f, %eax
  test %eax, %eax                       /* AF clear: but the low digit is over 9 */
  aaa
  NOTE(COMPAT_AAA, %eax)
  mov $0x79, %eax
  add $0x35, %al
  daa
  NOTE(COMPAT_DAA, %eax)
  mov $123, %eax
  aam
  NOTE(COMPAT_AAM, %eax)
  mov $0x0c03, %eax
  aad
  NOTE(COMPAT_AAD, %eax)
  movl $0x13572468, LOW_DATA
  mov $0xfffffff0, %ebx
  mov LOW_DATA + 0x10(%ebx), %eax       /* wraps at 4 GiB */
  NOTE(COMPAT_WRAP, %eax)
  movl $0x11223344, LOW_DATA
  movw $KERNEL_DS, LOW_DATA + 4
  les LOW_DATA, %eax
  NOTE(COMPAT_LES, %eax)

  /* out of long mode */
  mov %cr0, %eax
  and $0x7fffffff, %eax
  mov %eax, %cr0
  jmp 1f
1: mov $0xc0000080, %ecx
  rdmsr
  NOTE(PROTECTED_EFER, %eax)
  and $~0x100, %eax
  wrmsr
  lidt idt32_pointer

  /* segment limits. SPARE: data, base LOW_DATA, limit 0xfff; +8: the same, growing down */
  mov $SPARE_SELECTOR, %eax
  mov %eax, %fs
  movl $0xcafe, LOW_DATA + 0xffc
  mov %fs:0xffc, %eax
  NOTE(LIMIT_INSIDE, %eax)
  movl $0xdead, caught_vector
  movl $1f, resume
  mov %fs:0xffd, %eax
1: mov caught_vector, %eax
  NOTE(LIMIT_BEYOND, %eax)
  mov $SPARE_SELECTOR + 8, %eax
  mov %eax, %fs
  movl $0xdead, caught_vector
  movl $1f, resume
  mov %fs:0xfff, %eax
1: mov caught_vector, %eax
  NOTE(DOWN_BELOW, %eax)
  movl $0xbeef, LOW_DATA + 0x1000
  mov %fs:0x1000, %eax
  NOTE(DOWN_INSIDE, %eax)
  xor %eax, %eax
  mov %eax, %fs
  movl $0xdead, caught_vector
  movl $1f, resume
  mov %fs:0, %eax                       /* null selector */
1: mov caught_vector, %eax
  NOTE(NULL_SEGMENT, %eax)
  movl $0xdead, caught_vector
  movl $1f, resume
  movl $0, %cs:LOW_DATA                 /* code is not writable */
1: mov caught_vector, %eax
  NOTE(WRITE_CODE, %eax)
  movl $0xdead, caught_vector
  movl $1f, resume
  mov $0x1000, %eax
  mov %eax, %fs
1: mov caught_vector, %eax
  NOTE(BEYOND_GDT, %eax)
  mov caught_error, %eax
  NOTE(BEYOND_GDT_ERROR, %eax)

  /* two-level paging, 4 MiB pages: directory made by main.c; entry 100 points at 0 */
  mov %cr4, %eax
  and $~0x20, %eax
  or $0x10, %eax
  mov %eax, %cr4
  mov $directory32, %eax
  mov %eax, %cr3
  mov %cr0, %eax
  or $0x80000000, %eax
  mov %eax, %cr0
  movl $0x600d, LOW_DATA
  mov (100 << 22) + LOW_DATA, %eax
  NOTE(PAGING_2, %eax)
  movl $0xdead, caught_vector
  movl $1f, resume
  mov 101 << 22, %eax                   /* entry 101 is not present */
1: mov caught_vector, %eax
  NOTE(PAGING_2_FAULT, %eax)
  mov %cr2, %eax
  NOTE(PAGING_2_CR2, %eax)
  mov %cr0, %eax
  and $0x7fffffff, %eax
  mov %eax, %cr0

  /* PAE paging: four entries, no rights in them */
  mov %cr4, %eax
  or $0x20, %eax
  mov %eax, %cr4
  mov $pointers32, %eax
  mov %eax, %cr3
  mov %cr0, %eax
  or $0x80000000, %eax
  mov %eax, %cr0
  mov LOW_DATA, %eax
  NOTE(PAGING_PAE, %eax)
  mov %cr0, %eax
  and $0x7fffffff, %eax
  mov %eax, %cr0
  ljmp $CODE16, $IN_LOW(protected16)

back32:
  mov $KERNEL_DS, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $0xc0000080, %ecx
  rdmsr
  or $0x100, %eax
  wrmsr
  mov $pml4, %eax
  mov %eax, %cr3
  mov %cr0, %eax
  or $0x80000000, %eax
  mov %eax, %cr0
  ljmp $KERNEL_CS, $1f
  .code64
1: lidt saved_idt
  mov saved_rsp, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
  ret

  /* 32-bit handlers: with and without error code */
  .code32
  .globl with_error, without_error
with_error:
  pop caught_error
without_error:
  push resume
  pop (%esp)                            /* addressed after the pop: the return address */
  movl $1, caught_vector
  iret

  .globl low, low_end
low:
  .code16
protected16:
  mov $DATA16, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %ss
  mov $0x7000, %sp
  mov $0xffff, %ax
  add $1, %ax
  sbb %bx, %bx
  mov %bx, RESULTS + 4 * P16_CARRY
  mov $0x7000, %bx
  push %ax
  sub %sp, %bx
  pop %ax
  mov %bx, RESULTS + 4 * P16_PUSH
  mov $0x12345678, %eax
  mov %eax, RESULTS + 4 * P16_DWORD
  mov $0x9000, %bx
  mov $0x8800, %si
  movw $0x4321, RESULTS + 4 * P16_WRAP
  mov $RESULTS + 4 * P16_WRAP - 0x9000 + 0x10000 - 0x8800, %di
  lea (%bx,%di), %ax                    /* 16-bit sums wrap */
  add %si, %ax
  mov %ax, RESULTS + 4 * P16_LEA

  mov %cr0, %eax
  and $~1, %eax
  mov %eax, %cr0
  ljmp $0, $IN_LOW(real)
real:
  xor %ax, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %ss
  mov $0x7000, %sp
  lidt IN_LOW(real_idt)
  movw $IN_LOW(real_handler), 0x21 * 4
  movw $0, 0x21 * 4 + 2
  movw $IN_LOW(real_divide), 0
  movw $0, 2
  xor %eax, %eax
  stc
  int $0x21
  mov %eax, RESULTS + 4 * REAL_INT
  xor %bx, %bx
  mov $7, %ax
  div %bl                               /* the handler steps over it */
  mov %eax, RESULTS + 4 * REAL_DIVIDE
  mov $LOW_DATA >> 4, %ax
  mov %ax, %fs
  movl $0xabcd1234, %fs:8
  mov LOW_DATA + 8, %eax
  mov %eax, RESULTS + 4 * REAL_SEGMENT
  mov %cs, %ax
  mov %ax, RESULTS + 4 * REAL_CS
  mov $0xffff, %ax
  mov %ax, %fs
  mov %fs:0x10, %eax                    /* the first byte of the second megabyte */
  mov %eax, RESULTS + 4 * REAL_HIGH
  pushf
  pop %ax
  mov %ax, RESULTS + 4 * REAL_FLAGS
  mov %sp, RESULTS + 4 * REAL_SP
  mov $3, %cx
  xor %ax, %ax
1: add $5, %ax
  loop 1b
  mov %ax, RESULTS + 4 * REAL_LOOP
  mov %cr0, %eax
  or $1, %eax
  mov %eax, %cr0
  ljmpl $CODE32, $back32
real_handler:
  mov $0x5150, %eax
  iret
real_divide:
  push %bp
  mov %sp, %bp
  addw $2, 2(%bp)
  pop %bp
  mov $0xd1f, %eax
  iret
real_idt:
  .word 0x3ff
  .long 0
low_end:
  .code64

  .bss
  .align 4096
  .globl directory32, pointers32, saved_idt, idt32_pointer
directory32: .skip 4096
pointers32: .skip 4096
saved_rsp: .quad 0
caught_vector: .long 0
caught_error: .long 0
resume: .long 0
saved_idt: .skip 16
idt32_pointer: .skip 16
