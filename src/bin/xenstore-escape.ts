/** How xenstore-read and -ls print values that may be binary, and how xenstore-write reads them. Bytes are UTF-16 units here, one each. */
const NAMES: Readonly<Record<string, string>> = { "\t": "t", "\n": "n", "\r": "r", "\\": "\\" };
const VALUES: Readonly<Record<string, string>> = { t: "\t", n: "\n", r: "\r" };

/** Printable ASCII stays; \t \n \r \\ by name; bytes below 8 as three octal digits, others as \xHH. */
export const escapeValue = (value: string): string =>
  value.replace(/[^ -[\]-~]/g, (c) => {
    const code = c.charCodeAt(0);
    return `\\${NAMES[c] ?? (code < 8 ? code.toString(8).padStart(3, "0") : `x${code.toString(16).padStart(2, "0")}`)}`;
  });

/** The other way: \xH \xHH, one to three octal digits, names; any other character stands for itself. A backslash at the end is a zero byte, as with Xen's. */
export const unescapeValue = (text: string): string =>
  text.replace(/\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|([^]?))/g, (_, hex?: string, octal?: string, other?: string) => {
    if (hex !== undefined) return String.fromCharCode(Number.parseInt(hex, 16));
    if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8) & 0xff);
    return other === "" ? "\0" : (VALUES[other!] ?? other!);
  });
