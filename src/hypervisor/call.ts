/** What a hypercall's handler sees: who calls, with which arguments, and the caller's memory by its own linear addresses. */
import type { Field } from "../base/struct.ts";
import { EFAULT, EPERM, ESRCH } from "../abi/errno.ts";
import { DOMID } from "../abi/xen.ts";
import type { Domain } from "./domain.ts";
import type { Hypervisor } from "./hypervisor.ts";
import type { Vcpu } from "./vcpu.ts";

/** The guest's fault: becomes -errno at the hypercall's one exit. */
export class Refusal extends Error {
  override name = "Refusal";
  readonly errno: number;
  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}
/** The caller's memory, as its kernel sees it. False: some page is not there or may not be written; `isHint`: or is on its way from another machine, where it is waited for else. */
export type GuestAccess = {
  readLinear(linear: bigint, bytes: Uint8Array): boolean;
  writeLinear(linear: bigint, bytes: Uint8Array, isHint?: boolean): boolean;
};
/** Arguments in registers: `n` the low 32 bits, unsigned; `p` all of them. */
export interface Args { n(i: number): number; p(i: number): bigint }

/** The caller and what a handler may do to its pCPU and its domain. */
export interface Call {
  readonly hv: Hypervisor;
  readonly d: Domain;
  readonly v: Vcpu;
  readonly guest: GuestAccess;
  readonly is32: boolean;
  /** Leave the guest after this instruction, for EXIT.* */
  leave(exit: number): void;
  /** This pCPU's TLBs may hold what was just unmapped, and so may the domain's other pCPUs': returns when no more do. */
  flushTlbs(): void;
  /** Do not finish: run the instruction again, with this in place of the first argument. */
  again(firstArgument: number): void;
  /** Wait until the guest's frame is there, where it is on its way: for handlers that take hold of it. Not under a lock. */
  awaitFrame(gfn: number): boolean;
  /** May the domain's interrupts be delivered now? */
  hasDeliverable(): boolean;
}

/** Copy a struct or an array in. @throws Refusal EFAULT */
export function copyIn(c: Call, at: bigint, sizeBytes: number): DataView<ArrayBuffer> {
  const bytes = new Uint8Array(sizeBytes);
  if (!c.guest.readLinear(at, bytes)) throw new Refusal(EFAULT);
  return new DataView(bytes.buffer);
}
/** @throws Refusal EFAULT */
export function copyOut(c: Call, at: bigint, bytes: Uint8Array | DataView<ArrayBuffer>): void {
  if (!c.guest.writeLinear(at, bytes instanceof DataView ? new Uint8Array(bytes.buffer) : bytes)) throw new Refusal(EFAULT);
}
/** Copy one field of a struct out. */
export function copyFieldOut(c: Call, at: bigint, struct: DataView<ArrayBuffer>, field: Field<unknown>): void {
  copyOut(c, at + BigInt(field.at), new Uint8Array(struct.buffer, field.at, field.size));
}
/** A zero-terminated string in a buffer of fixed size. */
export function text(s: string, sizeBytes: number): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  bytes.set(new TextEncoder().encode(s).subarray(0, sizeBytes - 1));
  return bytes;
}
/** Does the number mean the caller: its own, or DOMID_SELF? */
export const isSelf = (c: Call, domid: number): boolean => domid === DOMID.SELF || domid === c.d.domid;
/** The domain an unprivileged caller may act on: itself. @throws Refusal ESRCH, EPERM */
export function self(c: Call, domid: number): Domain {
  if (isSelf(c, domid)) return c.d;
  throw new Refusal(c.hv.domain(domid) ? EPERM : ESRCH);
}
/** Guest numbers are up to 64 bits wide; beyond 2^53 they are all alike: too large. */
export const num = (x: bigint): number => Number(x);
