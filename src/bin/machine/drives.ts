/** Disks of a domain that xl keeps: as openDisks opens them, and drives for discs that are changed while the guest runs. */
import { type Disk, DiskError } from "../../storage/disk.ts";
import { LiveDisk } from "../../storage/online.ts";
import type { DiskConfig } from "../../toolstack/config.ts";
import { closeDisks } from "../../toolstack/disks.ts";
import type { DiskSpec } from "../../toolstack/xldisk.ts";
import { openDisks } from "../disks.ts";

/** A drive without a disc: no sectors. */
export class NoDisc implements Disk {
  readonly name = "empty";
  readonly format = "empty";
  readonly sizeBytes = 0;
  readonly physicalSectorBytes = 512;
  readonly isReadonly = true;
  onResize: (() => void) | null = null;
  #refuse(): Promise<never> { return Promise.reject(new DiskError("io", "The drive is empty")); }
  read(): Promise<void> { return this.#refuse(); }
  write(): Promise<void> { return this.#refuse(); }
  async flush(): Promise<void> {}
  async discard(): Promise<void> {}
  writeZeros(): Promise<void> { return this.#refuse(); }
  resize(): Promise<void> { return this.#refuse(); }
  async close(): Promise<void> {}
}

/** Open disks as a resident's: they can be exchanged under the guest. @throws UserError with none left open */
export async function openDrives(specs: readonly DiskSpec[]): Promise<DiskConfig[]> {
  const full = await openDisks(specs.filter((d) => d.format !== "empty"), "");
  return specs.map((spec) => {
    if (spec.format === "empty") return { vdev: spec.vdev, disk: new LiveDisk(new NoDisc()), isReadonly: true, isCdrom: true };
    const opened = full.find((d) => d.vdev === spec.vdev)!;
    return { ...opened, disk: new LiveDisk(opened.disk) };
  });
}

/**
 * Let go of a domain's disks while it stands still, so that another host can open them, and take them back where it goes on here.
 * @param specs of the disks, by their vdev
 */
export function handOver(disks: readonly DiskConfig[], specs: readonly DiskSpec[]): { release(): Promise<void>; retake(): Promise<void> } {
  const live = disks.flatMap(({ vdev, disk }) => { const spec = specs.find((d) => d.vdev === vdev); return disk instanceof LiveDisk && spec && spec.format !== "empty" ? [{ disk, spec }] : []; });
  return {
    release: async () => { for (const { disk } of live) await disk.exchange(async (present) => { await present.close(); return new NoDisc(); }); },
    retake: async () => { for (const { disk, spec } of live) await disk.exchange(async () => (await openDisks([spec], ""))[0]!.disk); },
  };
}

/** Put a disc into a drive in place of what is there; the guest hears of it as of a change of size. @throws UserError with the drive as it was */
export async function changeDisc(drive: LiveDisk, spec: DiskSpec | null): Promise<void> {
  const next: Disk = spec ? (await openDisks([spec], ""))[0]!.disk : new NoDisc();
  let old: Disk | null = null;
  try {
    await drive.exchange(async (present) => { old = present; return next; });
  } catch (e) {
    await closeDisks([{ vdev: "", disk: next }]);
    throw e;
  }
  drive.onResize?.();
  await (old as Disk | null)?.close();
}
