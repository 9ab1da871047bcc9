/*
 * From the PVH entry (32-bit, no paging: Xen's docs/misc/pvh) to C in long mode: identity map of 4 GiB in 2 MiB pages, GDT, TSS,
 * IDT with 256 stubs. Then guest_main(). Also here: what must be in assembly to catch a fault and go on (try_*).
 */
#define __ASSEMBLY__
#include "guest.h"

  .section .note.Xen, "a", @note
  .align 4
  .long 4, 8, 18                 /* XEN_ELFNOTE_PHYS32_ENTRY */
  .asciz "Xen"
  .quad entry32

  .section .text.entry, "ax"
  .code32
  .globl entry32
entry32:
  cld
  mov $stack_top, %esp
  mov %ebx, start_info_address
  /* PML4[0] -> PDPT; PDPT[0-3] -> four directories; 2048 pages of 2 MiB */
  movl $pdpt + 7, pml4
  mov $0, %ecx
1: mov %ecx, %eax
  shl $12, %eax
  lea pds + 7(%eax), %eax
  mov %eax, pdpt(,%ecx,8)
  inc %ecx
  cmp $4, %ecx
  jb 1b
  mov $0, %ecx
1: mov %ecx, %eax
  shl $21, %eax
  or $0x83, %eax                 /* present, writable, large */
  mov %eax, pds(,%ecx,8)
  movl $0, pds+4(,%ecx,8)
  inc %ecx
  cmp $2048, %ecx
  jb 1b
  mov %cr4, %eax
  or $0x620, %eax                /* PAE OSFXSR OSXMMEXCPT */
  mov %eax, %cr4
  LONG_MODE
  lgdt gdt_pointer
  ljmp $KERNEL_CS, $1f
  .code64
1: mov $KERNEL_DS, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  xor %eax, %eax
  mov %eax, %fs
  mov %eax, %gs
  mov $stack_top, %rsp
  xor %ebp, %ebp
  call guest_start
  ud2

/* 256 stubs of 16 bytes: error code or 0, vector, common part. */
  .align 16
  .globl stubs
stubs:
  vector = 0
  .rept 256
  .align 16
  .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
  push $0
  .endif
  push $vector
  jmp trapped
  vector = vector + 1
  .endr

trapped:
  push %rax; push %rcx; push %rdx; push %rbx; push %rbp; push %rsi; push %rdi
  push %r8; push %r9; push %r10; push %r11; push %r12; push %r13; push %r14; push %r15
  cld
  mov %rsp, %rdi
  mov %rsp, %rbp
  and $-16, %rsp
  call trap
  mov %rbp, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8
  pop %rdi; pop %rsi; pop %rbp; pop %rbx; pop %rdx; pop %rcx; pop %rax
  add $16, %rsp
  iretq

/* void try_call(void (*f)(u64), u64 arg): see guest.h. */
  .globl try_call, try_user, try_resume
try_call:
  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
  mov %rsp, try_rsp
  movl $1, try_armed
  mov %rdi, %rax
  mov %rsi, %rdi
  sub $8, %rsp
  call *%rax
  mov try_rsp, %rsp
  movl $0, try_armed
try_resume:
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
  ret
/* void try_user(u64 cs, u64 rip, u64 rsp, u64 rflags, u64 arg in rdi) */
try_user:
  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
  mov %rsp, try_rsp
  movl $1, try_armed
  pushq $USER_DS
  push %rdx
  push %rcx
  push %rdi
  push %rsi
  mov %r8, %rdi
  iretq

  .data
  .align 16
  .globl gdt, gdt_pointer
gdt:
  .quad 0
  .quad 0x00af9b000000ffff       /* 08 kernel code, 64 bit */
  .quad 0x00cf93000000ffff       /* 10 kernel data */
  .quad 0x00cffb000000ffff       /* 18 user code, 32 bit */
  .quad 0x00cff3000000ffff       /* 20 user data */
  .quad 0x00affb000000ffff       /* 28 user code, 64 bit */
  .quad 0, 0                     /* 30 TSS */
  .quad 0x00cf9b000000ffff       /* 40 code, 32 bit */
  .quad 0x00009b000000ffff       /* 48 code, 16 bit */
  .quad 0x000093000000ffff       /* 50 data, 16 bit */
  .fill 16, 8, 0                 /* 58 ... for tests */
gdt_end:
gdt_pointer:
  .word gdt_end - gdt - 1
  .quad gdt

  .bss
  .align 4096
  .globl pml4, pdpt, pds, stack_top, ist_stack_top, start_info_address, try_rsp, try_armed
pml4: .skip 4096
pdpt: .skip 4096
pds: .skip 4 * 4096
  .skip 32768
stack_top:
  .skip 16384
ist_stack_top:
start_info_address: .quad 0
try_rsp: .quad 0
try_armed: .long 0
