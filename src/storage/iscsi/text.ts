/** iSCSI's text keys: RFC 7143 section 6. `Key=value`, each ended by a zero byte. */
import { DiskError } from "../disk.ts";

/** Keys in the order they were said. */
export type Keys = [key: string, value: string][];

/** Keys as bytes. */
export const encodeKeys = (keys: Keys): Uint8Array<ArrayBuffer> => new TextEncoder().encode(keys.map(([k, v]) => `${k}=${v}\0`).join(""));
/** @throws DiskError `io` for what is no list of keys */
export function decodeKeys(bytes: Uint8Array, name: string): Keys {
  const keys: Keys = [];
  for (const piece of new TextDecoder().decode(bytes).split("\0")) {
    if (!piece) continue;
    const at = piece.indexOf("=");
    if (at < 1 || at > 63) throw new DiskError("io", `${name}: the target breaks the protocol: "${piece.slice(0, 80)}" is no key and value`);
    keys.push([piece.slice(0, at), piece.slice(at + 1)]);
  }
  return keys;
}

/** "0x..." or "0b..." (base64) as bytes; null when it is neither or longer than `bytesMax`. */
export function decodeBinary(text: string, bytesMax: number): Uint8Array<ArrayBuffer> | null {
  if (text.length > 2 * bytesMax + 8) return null;
  if (/^0x[0-9a-f]+$/i.test(text)) {
    const digits = text.length % 2 ? `0${text.slice(2)}` : text.slice(2);
    const bytes = Uint8Array.from({ length: digits.length / 2 }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16));
    return bytes.length <= bytesMax ? bytes : null;
  }
  if (!/^0b[A-Za-z0-9+/]*={0,2}$/i.test(text)) return null;
  try {
    const bytes = Uint8Array.from(atob(text.slice(2)), (c) => c.charCodeAt(0));
    return bytes.length <= bytesMax ? bytes : null;
  } catch { return null; }
}
/** Bytes as "0x...". */
export const encodeBinary = (bytes: Uint8Array): string => `0x${Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("")}`;
