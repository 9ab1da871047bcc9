/* Several processors: started by INIT and SIPI, each given functions to run. */
#ifndef SMP_H
#define SMP_H
#include "guest.h"
#define MAX_CPUS 32
static inline void pause(void) { __asm__ volatile("pause" : : : "memory"); }
static inline u32 atomic_add(volatile u32 *at, u32 n) { __asm__ volatile("lock xadd %0, %1" : "+r"(n), "+m"(*at) : : "memory"); return n; }
/* Start processors 1 to n - 1. Returns how many answered, with this one. */
u32 smp_start(u32 n);
/* Have f(cpu) run on processors 0 to n - 1 at once; processor 0 is the caller. Returns when all are done. */
void smp_run(u32 n, void (*f)(u32 cpu));
/* Stop a processor by INIT and start it anew by SIPI. */
bool smp_restart(u32 cpu);
/* Interprocessor interrupts: f runs on the processor that got one, if it lets interrupts in. */
u32 smp_id(void);
void smp_on_ipi(void (*f)(u32 cpu));
void smp_send_ipi(u32 cpu);
/* All n processors that call it leave it together. */
void smp_barrier(u32 n);
#endif
