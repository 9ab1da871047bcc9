/** The disks of a configuration, opened and closed together, wherever their images are. */
import { type Disk, DiskError } from "../storage/disk.ts";
import type { DiskConfig } from "./config.ts";
import { faultAt } from "./xlcfg.ts";
import type { DiskSpec } from "./xldisk.ts";

/** May the guest only read it? */
export const isReadOnly = (d: DiskSpec): boolean => d.access === "r" || d.devtype === "cdrom";

/** Open them all, one after the other. @param open one of them @throws what `open` throws, a DiskError as a UserError at its place; none is left open then */
export async function openEach(specs: readonly DiskSpec[], open: (spec: DiskSpec, isReadonly: boolean) => Promise<Disk>): Promise<DiskConfig[]> {
  const opened: DiskConfig[] = [];
  try {
    for (const spec of specs) {
      const isReadonly = isReadOnly(spec);
      const disk = await open(spec, isReadonly).catch((e) => { throw e instanceof DiskError ? faultAt(spec.place, `${spec.vdev}: ${e.message}`) : e; });
      opened.push({ vdev: spec.vdev, disk, isReadonly, isCdrom: spec.devtype === "cdrom", discards: spec.discard });
    }
    return opened;
  } catch (e) {
    await closeDisks(opened);
    throw e;
  }
}
/** Flush and close. A disk that cannot be flushed is told of, the others are closed all the same. */
export async function closeDisks(disks: readonly DiskConfig[], told: (sentence: string) => void = () => {}): Promise<void> {
  for (const { disk } of disks) await disk.close().catch((e) => { told(`${disk.name}: ${(e as Error).message}`); });
}
