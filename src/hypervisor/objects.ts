/**
 * The hypervisor's objects, as they lie in the Xen heap. Every thread of the machine reads and writes them; a word that two threads may
 * write at once is changed by Atomics or under the lock its comment names. Addresses are machine byte addresses; 0 is none.
 */
import { bytes, f64, i32, struct, u16, u32, u64, u8 } from "../base/struct.ts";
import { HYPERVISOR_BYTES } from "../memory/machine.ts";
import { CPU } from "../x86/state.ts";
import { DOMID } from "../abi/xen.ts";

/** Limits of a machine. */
export const MAX_PCPUS = 32, MAX_VCPUS_TOTAL = 4096, MAX_DOMAINS = DOMID.FIRST_RESERVED, MAX_POOLS = 32;
/** HVM_MAX_VCPUS of Xen's public/hvm/hvm_info_table.h */
export const MAX_VCPUS = 128;

/** What the hypervisor keeps of a pCPU; two cache lines each. */
export const PCPU = struct(128, {
  /** waited on when idle; added to and notified by whoever has work */
  wake: i32(0),
  /** PCPU_STATE */
  state: i32(4),
  /** PCPU_REQUEST bits, set by others before they kick [Atomics] */
  request: i32(8),
  /** the vCPU it runs now */
  vcpu: u32(12),
  /** the vCPU whose registers are in its register file, and that vCPU's serial number */
  loaded: u32(16), loadedSerial: u32(20),
  /** turns of its loop and slices: a thread that saw the counter move (or the pCPU idle) knows that no reference of before is held */
  turns: u32(24),
  /** p2m generation its TLBs were last known good for */
  p2mGen: u32(28),
  /** guest jumps a millisecond, measured */
  jumpsPerMs: f64(32),
  nrSwitches: u32(40), nrHypercalls: u32(44), nrSlices: u32(48),
  /** the domain's codeMarks its TLBs were last looked through for */
  codeMarks: u32(52),
  idleMs: f64(56),
  /** under runLock: 1 + its cpupool, 0: none; address of the vCPU it was given */
  pool: u32(64), given: u32(68),
  /** address of the first page of code to be decoded when there is nothing else to do, or 0 [Atomics]: warm.ts */
  warm: u32(72),
});
/** PCPU.state. */
export const PCPU_STATE = { off: 0, idle: 1, running: 2 } as const;
/** PCPU.request. */
export const PCPU_REQUEST = { flushTlb: 1, reschedule: 2 } as const;

/** The root: fixed, behind the machine header. */
export const HYPERVISOR_ROOT = struct(HYPERVISOR_BYTES, {
  /** nonzero: pCPUs leave their loops */
  stop: i32(0x00),
  nextSerial: u32(0x04),
  domainLock: i32(0x08), nextDomid: u32(0x0c),
  /** under which everything of the cpupools changes, and what their policies keep of vCPUs and domains */
  runLock: i32(0x10),
  /** a bit for each pCPU that waits for work [Atomics] */
  idlePcpus: u32(0x20),
  /** 1 + number of the idle pCPU that watches the timers, or 0 [Atomics] */
  timerKeeper: i32(0x24),
  nrVcpus: u32(0x28),
  /** domain 0's word: its event loop waits on it; added to with every event for domain 0 and every domain that ends */
  dom0Wake: i32(0x2c),
  /** counts domains that shut down, crashed or wrote to their debug console: domain 0 looks at them when it changed */
  domExc: u32(0x30),
  /** system time in ns of the earliest timer of any vCPU, best effort: never later than the truth for long */
  nextDeadline: f64(0x38),
  /** under which nextDeadline changes; the deadline the keeper sleeps towards */
  timersLock: i32(0x34), keeperDeadline: f64(0x48),
  /** the last time-stamp any pCPU handed out [Atomics]: no other goes below it */
  lastTsc: u64(0x40),
  /** held by guests' locked accesses that no single atomic operation makes (x86/mmu.ts) */
  busLock: i32(0x50),
  /** counts vCPUs that came to need a frame that is on its way: domain 0 looks at them when it changed */
  nrAwaits: u32(0x54),
  /** not 0: the host has more processors than the machine has pCPUs, so that who waits may look for a while before it sleeps (linger.ts) */
  hasSpareCpu: u32(0x58),
  /** addresses of all vCPUs, a slot each, 0 free */
  vcpus: bytes(0x1000, MAX_VCPUS_TOTAL * 4),
  /** addresses of domains by domid */
  domains: bytes(0x5000, MAX_DOMAINS * 4),
  pcpu: bytes(0x25000, MAX_PCPUS * 128),
  pools: bytes(0x26000, MAX_POOLS * 128),
});

/** A cpupool; all under runLock. */
export const POOL = struct(128, {
  /** XEN_SCHEDULER_*, 0: not in use. cpus: its pCPUs, a bit each */
  sched: u32(0), cpus: u32(4),
  /** waiting vCPUs: a list through VCPU.next */
  head: u32(8), tail: u32(12), nrQueued: u32(16),
  /** see PoolState of sched_policy.ts, as are the next ones */
  epoch: u32(20), assigned: u32(24), tsliceNs: f64(32), ratelimitNs: f64(40), nextAccountNs: f64(48),
  name: bytes(64, 64),
});

/** Limits of a domain: libxl's default for grants; pages of 1024 event words. */
export const MAX_GRANT_FRAMES = 64, FIFO_PAGES = 128, HVM_PARAMS = 39;

/** A domain; one frame. */
export const DOMAIN = struct(4096, {
  domid: u16(0x00), serial: u32(0x04),
  /** DYING */
  dying: i32(0x08),
  eventLock: i32(0x10), grantLock: i32(0x14), p2mLock: i32(0x18),
  p2mRoot: u32(0x1c),
  /** grows when a mapping is taken away: TLBs older than it are to be flushed */
  p2mGen: u32(0x20),
  /** grows when a frame becomes code, which stores must come and tell of: TLBs older than it are to be looked through [Atomics] */
  codeMarks: u32(0xf00),
  /** held while a frame is marked and codeMarks grows for it: who finds the mark of another pCPU there may rely on both */
  codeLock: i32(0xf20),
  /** under runLock: its cpupool; see Share of sched_policy.ts */
  pool: u32(0xf04), weight: u32(0xf08), capPct: u32(0xf0c), capLeftNs: f64(0xf10), capNextNs: f64(0xf18),
  totPages: u32(0x24), maxPages: u32(0x28), maxVcpus: u32(0x2c),
  /** how often the toolstack paused it [Atomics] */
  pauseCount: i32(0x30),
  /** 1 + SHUTDOWN code once it has shut down; changed from 0 by compare-and-swap */
  isShutDown: i32(0x34),
  /** gfn the shared info page is mapped at, or 0xffffffff; address of that page */
  sharedInfoGfn: u32(0x38),
  sharedInfo: u32(0x3c),
  vmAssist: u32(0x40),
  /** HVM_PARAM_CALLBACK_IRQ type 2: the vector; 0: none */
  callbackVector: u32(0x44),
  /** under eventLock: EVTCHN_ABI, ports, frame of bucket addresses, event array pages (FIFO) */
  evtchnAbi: u32(0x48), maxEvtchnPort: u32(0x4c), nrPorts: u32(0x50), evtchnBuckets: u32(0x54), nrFifoPages: u32(0x58), fifoPages: u32(0x5c),
  /** under grantLock */
  maxGrantFrames: u32(0x60), nrGrantFrames: u32(0x64), gntVersion: u32(0x68),
  /** frame of E820Entry, and how many */
  e820: u32(0x6c), nrE820: u32(0x70),
  /** what hypercall console_io wrote: a byte ring in a frame; prod [pCPU], cons [domain 0] */
  conring: u32(0x74), conringProd: u32(0x78), conringCons: u32(0x7c),
  handle: bytes(0x80, 16),
  createdNs: f64(0x90),
  /** CPUID's max frequency etc. leave room for policy */
  crashVcpu: i32(0x98), crashTextBytes: u32(0x9c), crashText: bytes(0xa0, 160),
  hvmParams: bytes(0x140, HVM_PARAMS * 8),
  /** 1 + the code SCHEDOP_shutdown_code chose for a later shutdown, or 0 */
  presetCode: i32(0x280),
  /** nonzero: its pCPUs' stores mark frames dirty, see dirty_log.ts */
  logDirty: i32(0x284),
  /** how far its system time is ahead of the machine's, in ns: it has come from another machine and not noticed */
  timeOffsetNs: f64(0x288),
  /** nonzero: frames of its memory may be on their way, see arrival.ts */
  isArriving: i32(0x290),
  vcpus: bytes(0x300, MAX_VCPUS * 4),
  /** per grant frame: mfn, address of the active entries, gfn it was mapped at (or 0xffffffff) */
  grantMfn: bytes(0x500, MAX_GRANT_FRAMES * 4), grantActive: bytes(0x600, MAX_GRANT_FRAMES * 4), grantGfn: bytes(0x700, MAX_GRANT_FRAMES * 4),
});
/** DOMAIN.dying. */
export const DYING = { alive: 0, dying: 1, dead: 2 } as const;
/** DOMAIN.evtchnAbi. */
export const EVTCHN_ABI = { twoLevel: 0, fifo: 1 } as const;

/** An event channel's end. All under the domain's eventLock. 128 to a bucket (a frame). */
export const EVTCHN = struct(32, {
  /** EVTCHNSTAT */
  state: u8(0),
  priority: u8(1),
  /** FIFO: became pending before its event word was there */
  pending: u8(2),
  lastPriority: u8(3),
  notifyVcpu: u16(4), lastVcpu: u16(6),
  /** unbound: who may bind. interdomain: the other end */
  remoteDomid: u16(8), virq: u16(10), remotePort: u32(12),
});
/** EVTCHNs in a bucket's page. */
export const EVTCHNS_PER_BUCKET = 128;

/** A grant that is in use. Under the grantLock. 512 to a frame. */
export const ACTIVE = struct(8, { /** maps for reading in the low half, for writing in the high */ pin: u32(0), mfn: u32(4) });

/** A vCPU; one frame. */
export const VCPU = struct(4096, {
  context: bytes(0, CPU.sizeof),
  domain: u32(0x600), vcpuId: u32(0x604), serial: u32(0x608),
  /** VPF bits: reasons not to run [Atomics] */
  pauseFlags: i32(0x60c),
  /** under runLock: next in the queue, 1 + the cpupool whose queue it is in, 1 + pCPU that runs it */
  next: u32(0x610), queued: u32(0x614), onPcpu: u32(0x618),
  /** 1 + the pCPU whose register file may still hold its context; 0: the copy here was changed */
  lastPcpu: u32(0x61c),
  /** RUNSTATE; entered at; ns in each state so far */
  runstate: i32(0x620), slot: u32(0x624), runstateEntry: f64(0x628), runstateTime: bytes(0x630, 32),
  /** vcpu_info; 0 for a vCPU beyond the legacy 32 that registered none. `vcpuInfoMfn`: the frame pinned by registering */
  vcpuInfo: u32(0x650), vcpuInfoMfn: u32(0x654),
  /** guest linear addresses, 0 none */
  runstateArea: u64(0x658), timeArea: u64(0x660),
  /** VIRQ_TIMER in ns of system time, 0 none; under timerLock, as are all deadlines */
  timerLock: i32(0x668), upcallVector: u32(0x66c),
  singleshot: f64(0x670), periodicPeriod: f64(0x678), periodicNext: f64(0x680), pollDeadline: f64(0x688), lapicDeadline: f64(0x690),
  /** 0: not polling; port of a poll on one port; 0xffffffff: on several */
  pollPort: u32(0x698),
  /** FIFO control block and the last port in each queue; under the domain's eventLock */
  fifoControl: u32(0x69c), fifoTail: bytes(0x6a0, 64),
  virqToEvtchn: bytes(0x6e0, 24 * 4),
  /** TSC_ADJUST that vcpu_info.time was computed for */
  timeAdjust: u64(0x740),
  /** has had registers: VCPUOP_up may bring it up again */
  isInitialised: u32(0x770),
  lastHypercall: u32(0x748), nrHypercalls: u32(0x74c), nrExits: bytes(0x750, 32),
  /** SCHEDOP_watchdog's two, of the domain: kept by vCPU 0 */
  watchdog1: f64(0x778), watchdog2: f64(0x780),
  /** see lapic.ts */
  lapic: bytes(0x800, 0x140),
  /** 1 + vector of a SIPI that came while the vCPU was on its way off its pCPU; taken by exchange [Atomics] */
  startup: i32(0xc00),
  /** it is to leave its pCPU at the next look: its pool or affinity changed [Atomics] */
  mustLeave: i32(0xc04),
  /** an NMI waits; several are one [Atomics] */
  nmiPending: i32(0xc74),
  /** 1 + the gfn that it waits for, 0: none [Atomics] */
  awaits: i32(0xc78),
  /** under runLock: see Unit of sched_policy.ts and VcpuUnit of sched_unit.ts; homePcpu: 1 + where it ran last */
  creditNs: f64(0xc08), chargedNs: f64(0xc10), startedNs: f64(0xc18), sliceEndNs: f64(0xc20), periodNs: f64(0xc28), budgetNs: f64(0xc30), leftNs: f64(0xc38), deadlineNs: f64(0xc40), ranNs: f64(0xc48),
  epoch: u32(0xc50), hard: u32(0xc54), soft: u32(0xc58), level: u32(0xc5c), isExtratime: u32(0xc60), assigned: u32(0xc64), yielded: u32(0xc68), isBoosted: u32(0xc6c), homePcpu: u32(0xc70),
});
/** VCPU.pauseFlags. down: not brought up; blocked: waits for an event; polling: in SCHEDOP_poll (with blocked); awaiting: needs a page that is on its way */
export const VPF = { down: 1, blocked: 2, polling: 4, awaiting: 8 } as const;
