/** The folders whose files a client may name: domusd knows its role, the machine opens the files. */
import { ApiFault } from "./fault.ts";

/** Folders, whole and without symbolic links; null: any file of the host. */
export type Folders = readonly string[] | null;
const HEADER = "x-domus-folders";

/** The header by which domusd tells the machine. A path may have any character in it. */
export const foldersHeader = (folders: Folders): Record<string, string> => (folders === null ? {} : { [HEADER]: encodeURIComponent(JSON.stringify(folders)) });
/** What that header says. Without it the client may name all: only the machine's owner can open its socket. @throws ApiFault */
export function foldersOf({ headers }: { readonly headers: Readonly<Record<string, string | string[] | undefined>> }): Folders {
  const text = headers[HEADER];
  if (text === undefined) return null;
  try {
    const folders: unknown = JSON.parse(decodeURIComponent(String(text)));
    if (Array.isArray(folders) && folders.every((f) => typeof f === "string")) return folders;
  } catch { /* said below */ }
  throw new ApiFault("invalid", `The header ${HEADER} is no list of folders`);
}
