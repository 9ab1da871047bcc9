/** The text of a new domain's configuration: where it begins, and a key set in it. */
import type { ImageEntry } from "./images.ts";

/** An xl.cfg for an image of the page's list. */
export const configOf = (name: string, i: ImageEntry): string => `# ${i.title}
name    = "${name}"
type    = "pvh"
kernel  = "${i.kernel}"
ramdisk = "${i.ramdisk}"
extra   = "${i.extra}"
memory  = ${i.memoryMiB}
vif     = [ "bridge=xenbr0" ]
`;
/** One for files of the user's own. */
export const BLANK = `name    = "guest"
type    = "pvh"
kernel  = "vmlinuz"       # a file of yours: pick it above, or add it under Files
ramdisk = "initrd"
extra   = "console=hvc0"
memory  = 256
`;
/** The text with that key set to a string, in the key's first line or in a new one at the end. */
export function withKey(text: string, key: string, value: string): string {
  const line = new RegExp(`^(\\s*${key}\\s*=\\s*)("(?:[^"\\\\\\n]|\\\\.)*"?|'(?:[^'\\\\\\n]|\\\\.)*'?|[^\\s#]*)`, "m"), quoted = JSON.stringify(value);
  return line.test(text) ? text.replace(line, (_all, head: string) => head + quoted) : `${text}${text === "" || text.endsWith("\n") ? "" : "\n"}${key} = ${quoted}\n`;
}
