/** Opening the disks of a configuration: what stands in `target`, by the format that the configuration says. */
import { dirname, isAbsolute, join } from "node:path";
import { existsSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { unzstd } from "../builder/decompress/zstd.ts";
import { DiskError, type Disk } from "../storage/disk.ts";
import { NodeStore } from "../storage/file.node.ts";
import { openIscsiUri } from "../storage/iscsi/client.ts";
import { openNbd } from "../storage/nbd/client.ts";
import { openDisk } from "../storage/open.ts";
import { MemoryOverlay } from "../storage/overlay.ts";
import { connectSocket } from "../storage/socket.node.ts";
import type { DiskConfig } from "../toolstack/config.ts";
import { faultAt } from "../toolstack/xlcfg.ts";
import type { DiskSpec } from "../toolstack/xldisk.ts";

/** This computer's name as an iSCSI initiator (RFC 7143 4.2.7): what /etc/iscsi says, else one of ours. */
function initiatorName(): string {
  try {
    const said = /^InitiatorName=(\S+)/m.exec(readFileSync("/etc/iscsi/initiatorname.iscsi", "utf8"))?.[1];
    if (said) return said;
  } catch { /* most computers have none */ }
  return `iqn.2026-01.org.domus:${hostname().toLowerCase().replaceAll(/[^a-z0-9.-]/g, "-")}`;
}

/** A path of a configuration: from the current folder, as xl has it, else from the file's own. */
export const pathOf = (path: string, file: string): string => {
  const beside = join(dirname(file), path);
  return isAbsolute(path) || existsSync(path) || !existsSync(beside) ? path : beside;
};

/** Open them all. @param file the configuration they stand in @param isThrowaway keep what is written in memory, and forget it at the end @throws UserError at the place of the one that cannot be had, with none left open */
export async function openDisks(specs: readonly DiskSpec[], file: string, isThrowaway = false): Promise<DiskConfig[]> {
  const opened: DiskConfig[] = [], store = new NodeStore();
  try {
    for (const spec of specs) {
      const isReadonly = spec.access === "r" || spec.devtype === "cdrom";
      const disk = await open(spec, file, isReadonly || isThrowaway, store);
      opened.push({ vdev: spec.vdev, disk: isThrowaway && !isReadonly ? new MemoryOverlay(disk) : disk, isReadonly, isCdrom: spec.devtype === "cdrom", discards: spec.discard });
    }
    return opened;
  } catch (e) {
    await closeDisks(opened);
    throw e;
  }
}
/** The scheme of a disk that another program serves; undefined: it is a file. */
export const peerOf = (target: string): string | undefined => /^(nbd|nbd\+unix|iscsi):\/\//.exec(target)?.[1];
async function open(spec: DiskSpec, file: string, isReadonly: boolean, store: NodeStore): Promise<Disk> {
  try {
    const peer = peerOf(spec.target);
    if (peer) {
      if (spec.format !== "raw") throw faultAt(spec.place, `${spec.vdev}: A disk of another machine is taken as it is: write format=raw, not ${spec.format}`);
      return await (peer === "iscsi" ? openIscsiUri(spec.target, { connect: connectSocket, initiatorName: initiatorName(), isReadonly }) : openNbd(spec.target, { connect: connectSocket, isReadonly }));
    }
    return await openDisk({ path: pathOf(spec.target, file), format: spec.format, store, isReadonly, unzstd: (frame, options) => unzstd(frame, options) });
  } catch (e) {
    if (e instanceof DiskError) throw faultAt(spec.place, `${spec.vdev}: ${e.message}`);
    throw e;
  }
}
/** Flush and close. A disk that cannot be flushed is told of, the others are closed all the same. */
export async function closeDisks(disks: readonly DiskConfig[], told: (sentence: string) => void = () => {}): Promise<void> {
  for (const { disk } of disks) await disk.close().catch((e) => { told(`${disk.name}: ${(e as Error).message}`); });
}
