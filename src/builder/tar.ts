/**
 * Writes tar archives in the "ustar" format, for what is laid over a root file system. The same entries give the same bytes.
 * @see IEEE Std 1003.1, pax, "ustar Interchange Format"
 */
import { concat } from "../base/bytes.ts";
import { UserError } from "../base/errors.ts";

const TYPE = { file: "0", symlink: "2", dir: "5" } as const, DEFAULT_MODE = { file: 0o644, symlink: 0o777, dir: 0o755 } as const;
const BLOCK = 512, MAX_SIZE = 8 ** 11 - 1, MAX_ID = 8 ** 7 - 1;

/** One member of an archive. Parents are not made: what is not named keeps the owner and mode it has where it is unpacked. */
export type TarEntry = {
  /** relative to the root */
  readonly path: string;
  /** permission bits; the usual ones where not given */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
} & ({ readonly kind: "dir" } | { readonly kind: "file"; readonly bytes: Uint8Array } | { readonly kind: "symlink"; readonly target: string });

/**
 * Make an archive of the entries, in their order.
 * @param mtime of all of them, seconds since 1970
 */
export function tar(entries: Iterable<TarEntry>, mtime: number): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  for (const entry of entries) {
    const content = entry.kind === "file" ? entry.bytes : new Uint8Array(0);
    parts.push(header(entry, content.length, mtime), content, new Uint8Array(-content.length & (BLOCK - 1)));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return concat(parts);
}

function header(entry: TarEntry, size: number, mtime: number): Uint8Array {
  const { path, kind, mode = DEFAULT_MODE[kind], uid = 0, gid = 0 } = entry, block = new Uint8Array(BLOCK);
  const text = (at: number, room: number, value: string, what: string): void => {
    const bytes = new TextEncoder().encode(value);
    if (bytes.length > room) throw new UserError(`"${path}": its ${what} has ${bytes.length} bytes; ${room} is a tar archive's limit`);
    if (bytes.includes(0)) throw new UserError(`"${path}": its ${what} has a zero byte in it`);
    block.set(bytes, at);
  };
  const octal = (at: number, digits: number, value: number, most: number, what: string): void => {
    if (!Number.isInteger(value) || value < 0 || value > most) throw new UserError(`"${path}": ${what} ${value} is not in a tar archive's range, 0 to ${most}`);
    text(at, digits, value.toString(8).padStart(digits, "0"), what);
  };
  if (path === "" || path.startsWith("/") || path.split("/").includes("..")) throw new UserError(`"${path}" is no path for an archive; give one below the root, without ".."`);
  text(0, 100, kind === "dir" ? `${path}/` : path, "path");
  octal(100, 7, mode & 0o7777, 0o7777, "mode");
  octal(108, 7, uid, MAX_ID, "uid");
  octal(116, 7, gid, MAX_ID, "gid");
  octal(124, 11, size, MAX_SIZE, "size");
  octal(136, 11, mtime, MAX_SIZE, "mtime");
  text(148, 8, " ".repeat(8), "checksum");
  text(156, 1, TYPE[kind], "type");
  if (entry.kind === "symlink") text(157, 100, entry.target, "target");
  text(257, 5, "ustar", "magic");
  text(263, 2, "00", "version");
  text(148, 6, block.reduce((sum, b) => sum + b, 0).toString(8).padStart(6, "0"), "checksum");
  block[154] = 0;      // six digits, a zero byte and the blank that stands there
  return block;
}
