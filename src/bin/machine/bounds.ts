/** Which files of the host a client may name: all, or those in some folders. */
import { realpath } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { ApiFault } from "../../api/fault.ts";
import type { Folders } from "../../api/folders.ts";
import { isBelow } from "../../storage/file.node.ts";
import { parseNbdUri } from "../../storage/nbd/uri.ts";
import { diskFromLibxl, type LibxlConfig, type LibxlDisk } from "../../toolstack/libxl-json.ts";
import { peerOf } from "../disks.ts";

/** Is it in that folder, or the folder itself? Both without symbolic links. */
export const isWithin = (path: string, folder: string): boolean => path === folder || isBelow(path, folder);

/** Where a path leads: of what is to be made, its folder without symbolic links; null where that is not known. */
async function truePath(path: string, isMade: boolean): Promise<string | null> {
  try { return isMade ? join(await realpath(dirname(path)), basename(path)) : await realpath(path); } catch { return null; }
}
/**
 * Refuse a path outside the folders. What cannot be found is refused in the same words: whether it is there is not told.
 * @param isMade it is to be made @throws ApiFault
 */
export async function mustBeWithin(folders: Folders, path: string, isMade = false): Promise<void> {
  if (folders === null) return;
  const found = await truePath(resolve("/", path), isMade);
  if (found !== null && folders.some((f) => isWithin(found, f))) return;
  throw new ApiFault("forbidden", `"${path}" is not in the folders whose files your role may name over HTTP, of which there are ${folders.length === 0 ? "none" : folders.length}; who rules the host gives them: domusd --folders DIR[:DIR]`);
}
/** What a disk is of: a file, or a server, which may be at a socket of the host. @throws ApiFault UserError */
export async function mustBeDisk(folders: Folders, json: LibxlDisk): Promise<void> {
  if (folders === null || !json.pdev_path) return;
  const { target } = diskFromLibxl(json), scheme = peerOf(target);
  if (scheme === "nbd+unix") {
    const { at } = parseNbdUri(target);
    if ("path" in at) await mustBeWithin(folders, at.path);
  } else if (scheme === undefined) await mustBeWithin(folders, target);
}
/** All that a configuration names. @returns it @throws ApiFault */
export async function mustNameWithin(folders: Folders, config: LibxlConfig): Promise<LibxlConfig> {
  const { kernel, ramdisk } = config.b_info;
  await mustBeWithin(folders, kernel);
  if (ramdisk !== undefined) await mustBeWithin(folders, ramdisk);
  for (const d of config.disks ?? []) await mustBeDisk(folders, d);
  for (const c of config.channels ?? []) await mustBeWithin(folders, c["connection.socket"].path, true);
  for (const s of config.p9s ?? []) await mustBeWithin(folders, s.path);
  return config;
}
