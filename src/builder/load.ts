/** What the toolstack calls to make a domain: plan it, let the hypervisor populate `plan.populate`, then write it. */
import type { PvhPlan } from "./pvh.ts";

export { readKernel } from "./bzimage.ts";
export type { Place } from "./decompress/output.ts";
export { planPvh, type E820Entry, type GfnRange, type NamedBytes, type PvhConfig, type PvhPlan, type PvhRegisters, type SegmentRegister } from "./pvh.ts";

/** A way into a guest's memory. Ranges lie in frames of `plan.populate`, but may cross page boundaries. */
export type GuestWriter = {
  write(gpa: number, bytes: Uint8Array): void;
  /** left out where frames are fresh, and so zero */
  zero?(gpa: number, size: number): void;
};

/** Put everything planned where it belongs. */
export function writePvh(plan: PvhPlan, writer: GuestWriter): void {
  for (const { gpa, bytes } of plan.writes) writer.write(gpa, bytes);
  for (const { gpa, size } of plan.zeros) writer.zero?.(gpa, size);
}
