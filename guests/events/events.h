/* Event channel calls, as Xen's public/event_channel.h has them. */
#include "../common/guest.h"
#define SELF 0x7ff0
#define EVTCHN(cmd, arg) hypercall(32, cmd, (u64)(arg), 0, 0, 0)
static inline s64 alloc_unbound(u32 *port) { struct { u16 dom, remote; u32 port; } a = { SELF, SELF, 0 }; s64 r = EVTCHN(6, &a); *port = a.port; return r; }
static inline s64 bind_interdomain(u32 remote, u32 *port) { struct { u16 dom, pad; u32 remote, local; } a = { SELF, 0, remote, 0 }; s64 r = EVTCHN(0, &a); *port = a.local; return r; }
static inline s64 bind_virq(u32 virq, u32 *port) { struct { u32 virq, vcpu, port; } a = { virq, 0, 0 }; s64 r = EVTCHN(1, &a); *port = a.port; return r; }
static inline s64 bind_ipi(u32 *port) { struct { u32 vcpu, port; } a = { 0, 0 }; s64 r = EVTCHN(7, &a); *port = a.port; return r; }
static inline s64 evtchn_close(u32 port) { return EVTCHN(3, &port); }
static inline s64 evtchn_send(u32 port) { return EVTCHN(4, &port); }
static inline s64 evtchn_unmask(u32 port) { return EVTCHN(9, &port); }
static inline s64 evtchn_status(u32 port) { struct { u16 dom, pad; u32 port, status, vcpu, u[2]; } a = { SELF, 0, port, 0, 0, { 0 } }; s64 r = EVTCHN(5, &a); return r < 0 ? r : (s64)a.status; }
/* shared_info, 64-bit: vcpu_info[0] at 0, evtchn_pending at 2048, evtchn_mask at 2560 */
#define UPCALL_PENDING ((volatile u8 *)shared_info())
#define PENDING_SEL ((volatile u64 *)((u64)shared_info() + 8))
#define PENDING ((volatile u64 *)((u64)shared_info() + 2048))
#define MASK ((volatile u64 *)((u64)shared_info() + 2560))
#define VECTOR 0x60
/* HVM_PARAM_CALLBACK_IRQ: a vector, for which no EOI is due */
static inline s64 callback_by_vector(u8 vector) { struct { u16 domid, pad; u32 index; u64 value; } p = { SELF, 0, 0, 2ul << 56 | vector }; return hypercall(34, 0, (u64)&p, 0, 0, 0); }
static inline u64 exchange(volatile u64 *at, u64 v) { __asm__ volatile("xchg %0, %1" : "+r"(v), "+m"(*at) : : "memory"); return v; }
static inline void set_bit(volatile u64 *words, u32 n) { __asm__ volatile("lock btsq %1, %0" : "+m"(words[n / 64]) : "r"((u64)n % 64) : "memory"); }
static inline bool clear_bit(volatile u64 *words, u32 n) { bool c; __asm__ volatile("lock btrq %2, %1; setc %0" : "=q"(c), "+m"(words[n / 64]) : "r"((u64)n % 64) : "memory"); return c; }
static inline bool test_bit(volatile u64 *words, u32 n) { return words[n / 64] >> n % 64 & 1; }
