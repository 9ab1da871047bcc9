/** Opening the disks of a configuration: what stands in `target`, by the format that the configuration says. */
import { dirname, isAbsolute, join } from "node:path";
import { existsSync } from "node:fs";
import { DiskError, type Disk } from "../storage/disk.ts";
import { NodeStore } from "../storage/file.node.ts";
import { openDisk } from "../storage/open.ts";
import type { DiskConfig } from "../toolstack/config.ts";
import { faultAt } from "../toolstack/xlcfg.ts";
import type { DiskSpec } from "../toolstack/xldisk.ts";

/** A path of a configuration: from the current folder, as xl has it, else from the file's own. */
export const pathOf = (path: string, file: string): string => {
  const beside = join(dirname(file), path);
  return isAbsolute(path) || existsSync(path) || !existsSync(beside) ? path : beside;
};

/** Open them all. @param file the configuration they stand in @throws UserError at the place of the one that cannot be had, with none left open */
export async function openDisks(specs: readonly DiskSpec[], file: string): Promise<DiskConfig[]> {
  const opened: DiskConfig[] = [], store = new NodeStore();
  try {
    for (const spec of specs) {
      const isReadonly = spec.access === "r" || spec.devtype === "cdrom";
      opened.push({ vdev: spec.vdev, disk: await open(spec, file, isReadonly, store), isReadonly, isCdrom: spec.devtype === "cdrom", discards: spec.discard });
    }
    return opened;
  } catch (e) {
    await closeDisks(opened);
    throw e;
  }
}
async function open(spec: DiskSpec, file: string, isReadonly: boolean, store: NodeStore): Promise<Disk> {
  try {
    return await openDisk({ path: pathOf(spec.target, file), format: spec.format, store, isReadonly });
  } catch (e) {
    if (e instanceof DiskError) throw faultAt(spec.place, `${spec.vdev}: ${e.message}`);
    throw e;
  }
}
/** Flush and close. A disk that cannot be flushed is told of, the others are closed all the same. */
export async function closeDisks(disks: readonly DiskConfig[], told: (sentence: string) => void = () => {}): Promise<void> {
  for (const { disk } of disks) await disk.close().catch((e) => { told(`${disk.name}: ${(e as Error).message}`); });
}
