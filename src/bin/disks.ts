/** Opening the disks of a configuration: what stands in `target`, by the format that the configuration says. */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { unzstd } from "../builder/decompress/zstd.ts";
import type { Disk } from "../storage/disk.ts";
import { NodeStore } from "../storage/file.node.ts";
import { openIscsiUri } from "../storage/iscsi/client.ts";
import { openNbd } from "../storage/nbd/client.ts";
import { openDisk } from "../storage/open.ts";
import { MemoryOverlay } from "../storage/overlay.ts";
import { connectSocket } from "../storage/socket.node.ts";
import type { DiskConfig } from "../toolstack/config.ts";
import { openEach } from "../toolstack/disks.ts";
import { faultAt } from "../toolstack/xlcfg.ts";
import type { DiskSpec } from "../toolstack/xldisk.ts";
import { pathOf } from "./paths.ts";

/** This computer's name as an iSCSI initiator (RFC 7143 4.2.7): what /etc/iscsi says, else one of ours. */
function initiatorName(): string {
  try {
    const said = /^InitiatorName=(\S+)/m.exec(readFileSync("/etc/iscsi/initiatorname.iscsi", "utf8"))?.[1];
    if (said) return said;
  } catch { /* most computers have none */ }
  return `iqn.2026-01.org.domus:${hostname().toLowerCase().replaceAll(/[^a-z0-9.-]/g, "-")}`;
}

/** Open them all. @param file the configuration they stand in @param isThrowaway keep what is written in memory, and forget it at the end @throws UserError at the place of the one that cannot be had, with none left open */
export async function openDisks(specs: readonly DiskSpec[], file: string, isThrowaway = false): Promise<DiskConfig[]> {
  const store = new NodeStore();
  return openEach(specs, async (spec, isReadonly) => {
    const disk = await open(spec, file, isReadonly || isThrowaway, store);
    return isThrowaway && !isReadonly ? new MemoryOverlay(disk) : disk;
  });
}
/** The scheme of a disk that another program serves; undefined: it is a file. */
export const peerOf = (target: string): string | undefined => /^(nbd|nbd\+unix|iscsi):\/\//.exec(target)?.[1];
async function open(spec: DiskSpec, file: string, isReadonly: boolean, store: NodeStore): Promise<Disk> {
  const peer = peerOf(spec.target);
  if (peer) {
    if (spec.format !== "raw") throw faultAt(spec.place, `${spec.vdev}: A disk of another machine is taken as it is: write format=raw, not ${spec.format}`);
    return peer === "iscsi" ? openIscsiUri(spec.target, { connect: connectSocket, initiatorName: initiatorName(), isReadonly }) : openNbd(spec.target, { connect: connectSocket, isReadonly });
  }
  return openDisk({ path: pathOf(spec.target, file), format: spec.format, store, isReadonly, unzstd: (frame, options) => unzstd(frame, options) });
}
