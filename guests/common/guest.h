/* What every guest of ours has at hand: console, faults that are caught, the hypervisor if there is one, the end. */
#ifndef GUEST_H
#define GUEST_H

#define KERNEL_CS 0x08
#define KERNEL_DS 0x10
#define USER_CS32 0x1b
#define USER_DS 0x23
#define USER_CS 0x2b
#define TSS_SELECTOR 0x30
#define CODE32 0x40
#define CODE16 0x48
#define DATA16 0x50
#define SPARE_SELECTOR 0x58

#ifdef __ASSEMBLY__
/* From 32 bits with PAE to long mode, by the tables at pml4; a far jump to a 64-bit segment follows. */
.macro LONG_MODE
  mov $pml4, %eax
  mov %eax, %cr3
  mov $0xc0000080, %ecx
  rdmsr
  or $0x900, %eax                /* LME NXE */
  wrmsr
  mov $0x80010033, %eax          /* PG WP NE ET MP PE */
  mov %eax, %cr0
.endm
#else
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef signed int s32;
typedef signed long s64;
typedef _Bool bool;
#define NULL ((void *)0)
#define true 1
#define false 0

#define DE 0
#define DB 1
#define BP 3
#define OF 4
#define BR 5
#define UD 6
#define NM 7
#define DF 8
#define TS 10
#define NP 11
#define SS 12
#define GP 13
#define PF 14
#define MF 16
#define AC 17
#define XM 19
#define USER_EXIT 0x80        /* int $0x80 ends user code */
#define NO_FAULT (-1)

struct frame { u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax, vector, error, rip, cs, rflags, rsp, ss; };
/* The last fault caught by try_call or try_user. vector is NO_FAULT when the function returned. */
struct outcome { int vector; u64 cr2; struct frame frame; };
extern struct outcome outcome;

/* The guest itself, in its main.c. Returns; then the result is told. */
void guest_main(void);

/* console.c */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));   /* %s %c %d %u %x %lx %lu %p */
/* Count a failure unless the condition holds. */
void check(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
void skip(const char *reason) __attribute__((noreturn));
void finish(void) __attribute__((noreturn));
/* End without a result line. */
void power_off(void) __attribute__((noreturn));

/* trap.c */
void set_gate(int vector, u64 handler, u16 selector, int ist, u8 type_and_dpl);
void on_interrupt(int vector, void (*handler)(struct frame *));
void load_idt(void);
/* Run f(arg) at CPL 0; a fault in it comes back here. Returns the vector. */
int attempt(void (*f)(u64), u64 arg);
/* Run code at CPL 3 until a fault or int $0x80. */
int attempt_user(u64 cs, u64 rip, u64 rsp, u64 rflags, u64 arg);
extern char stubs[], pml4[], pdpt[], pds[], ist_stack_top[], stack_top[], image_end[];
extern u64 gdt[];
extern u64 start_info_address;
struct tss { u32 r0; u64 rsp[3], r1, ist[7], r2; u16 r3, iomap; u8 bitmap[8]; } __attribute__((packed));
extern struct tss tss;

/* memory.c: a second address space region, made of 4 KiB pages with rights of one's choice */
#define PTE_P 1ul
#define PTE_W 2ul
#define PTE_U 4ul
#define PTE_A 0x20ul
#define PTE_D 0x40ul
#define PTE_PS 0x80ul
#define PTE_G 0x100ul
#define PTE_NX (1ul << 63)
#define REGION 0x8000000000ul
u64 *pte_of(u64 address);                        /* in the region's 4 MiB */
void map_page(u64 address, u64 frame, u64 rights);
u64 new_page(void);                              /* a zeroed page of the guest's own memory */
void *memcpy(void *to, const void *from, u64 n);
void *memset(void *to, int c, u64 n);
const char *command_line(void);
u64 option(const char *name, u64 otherwise);     /* name=NUMBER on the command line */

/* xen.c */
extern u32 xen_base;                             /* CPUID leaf of Xen, 0 without */
s64 hypercall(u64 nr, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5);
u64 hvm_param(u32 index);
void xen_init(void);
void xen_console_write(const char *text, u32 n);
struct shared_info *shared_info(void);

/* processor */
static inline void cpuid(u32 leaf, u32 sub, u32 r[4]) { __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub)); }
static inline u64 rdmsr(u32 i) { u32 lo, hi; __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(i)); return (u64)hi << 32 | lo; }
static inline void wrmsr(u32 i, u64 v) { __asm__ volatile("wrmsr" : : "c"(i), "a"((u32)v), "d"((u32)(v >> 32)) : "memory"); }
static inline u64 rdtsc(void) { u32 lo, hi; __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)); return (u64)hi << 32 | lo; }
#define READ_CR(n) ({ u64 v_; __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v_) : : "memory"); v_; })
#define WRITE_CR(n, v) __asm__ volatile("mov %0, %%cr" #n : : "r"((u64)(v)) : "memory")
#define READ_DR(n) ({ u64 v_; __asm__ volatile("mov %%db" #n ", %0" : "=r"(v_)); v_; })
#define WRITE_DR(n, v) __asm__ volatile("mov %0, %%db" #n : : "r"((u64)(v)))
static inline void invlpg(u64 a) { __asm__ volatile("invlpg (%0)" : : "r"(a) : "memory"); }
static inline void outb(u16 port, u8 v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline void cli(void) { __asm__ volatile("cli" : : : "memory"); }
static inline void sti(void) { __asm__ volatile("sti" : : : "memory"); }
static inline bool has(u32 leaf, int reg, int bit) { u32 r[4]; cpuid(leaf & 0x80000000u, 0, r); if (r[0] < leaf) return false; cpuid(leaf, 0, r); return r[reg] >> bit & 1; }
#define EAX 0
#define EBX 1
#define ECX 2
#define EDX 3
#endif
#endif
