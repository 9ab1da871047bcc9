/**
 * Writes cpio archives in the "newc" format, for an initramfs. The same entries give the same bytes: times are zero and
 * inodes are counted, unless told otherwise.
 * @see Linux's Documentation/driver-api/early-userspace/buffer-format.rst
 */
import { UserError } from "../base/errors.ts";

/** st_mode's file types, POSIX sys/stat.h. */
const S_IF = { dir: 0o040000, file: 0o100000, symlink: 0o120000, char: 0o020000, block: 0o060000, fifo: 0o010000 } as const;
const DEFAULT_MODE = { dir: 0o755, file: 0o644, symlink: 0o777, char: 0o600, block: 0o600, fifo: 0o600 } as const;
const MAX_SIZE = 0xffffffff, HEADER = 110;

/** One member of an archive. */
export type CpioEntry = {
  /** relative to the root, or absolute; missing parents are made as directories */
  readonly path: string;
  /** permission bits; the usual ones where not given */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** seconds since 1970 */
  readonly mtime?: number;
} & (
  | { readonly kind: "dir" | "fifo" }
  | { readonly kind: "file"; readonly bytes: Uint8Array }
  | { readonly kind: "symlink"; readonly target: string }
  | { readonly kind: "char" | "block"; readonly major: number; readonly minor: number }
);

/** Make an archive of the entries, in their order. Of two entries with one path the later wins when it is unpacked. */
export function cpio(entries: Iterable<CpioEntry>): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [], directories = new Set<string>();
  let nrInodes = 0, size = 0;
  const add = (b: Uint8Array): void => {
    const padding = -b.length & 3;
    parts.push(b, new Uint8Array(padding));
    size += b.length + padding;
  };
  const put = (path: string, entry: CpioEntry): void => {
    const content = entry.kind === "file" ? entry.bytes : entry.kind === "symlink" ? encode(entry.target, "target") : new Uint8Array(0);
    if (content.length > MAX_SIZE) throw new UserError(`"${path}" has ${content.length} bytes; a cpio archive holds files below 4 GiB`);
    const [major, minor] = entry.kind === "char" || entry.kind === "block" ? [entry.major, entry.minor] : [0, 0];
    const { kind, mode = DEFAULT_MODE[kind], uid = 0, gid = 0, mtime = 0 } = entry;
    add(header(encode(path, "path"), [++nrInodes, S_IF[kind] | mode & 0o7777, uid, gid, kind === "dir" ? 2 : 1, mtime, content.length, 0, 0, major, minor]));
    add(content);
    if (kind === "dir") directories.add(path);
  };
  for (const entry of entries) {
    const steps = entry.path.split("/").filter((step) => step !== "" && step !== ".");
    if (steps.length === 0 || steps.includes("..")) throw new UserError(`"${entry.path}" is no path for an archive; give one below the root, without ".."`);
    for (let i = 1; i < steps.length; i++) {
      const parent = steps.slice(0, i).join("/");
      if (!directories.has(parent)) put(parent, { kind: "dir", path: parent });
    }
    put(steps.join("/"), entry);
  }
  add(header(encode("TRAILER!!!", "path"), [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
  const archive = new Uint8Array(Math.ceil(size / 512) * 512);
  let at = 0;
  for (const part of parts) { archive.set(part, at); at += part.length; }
  return archive;
}

function encode(text: string, what: string): Uint8Array {
  if (text === "" || text.includes("\0")) throw new UserError(`${JSON.stringify(text)} is no ${what} for an archive; it must not be empty nor have a zero byte in it`);
  return new TextEncoder().encode(text);
}

/** The magic, then ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize and check, each as eight hexadecimal digits. */
function header(path: Uint8Array, fields: readonly number[]): Uint8Array {
  const text = `070701${[...fields, path.length + 1, 0].map(hex8).join("")}`, b = new Uint8Array(HEADER + path.length + 1);
  new TextEncoder().encodeInto(text, b);
  b.set(path, HEADER);
  return b;
}

function hex8(n: number): string {
  if (!Number.isInteger(n) || n < 0 || n > MAX_SIZE) throw new UserError(`${n} does not fit a field of a cpio archive; give an integer from 0 to ${MAX_SIZE}`);
  return n.toString(16).toUpperCase().padStart(8, "0");
}
