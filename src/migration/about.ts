/** DOMUS_DOMAIN: what Xen's records do not say of a domain, as JSON. It comes before all other records; the version grows when an older Domus could not do with what is new. */
import { DOMID } from "../abi/xen.ts";
import type { Domain, E820 } from "../hypervisor/domain.ts";
import { CODE_PLACES_MAX, type CodePlace, isCodeMode } from "../hypervisor/warm.ts";
import { Checked, rawOf } from "./checked.ts";
import { StreamError } from "./stream.ts";

const VERSION = 1;
const LIMIT = { vcpus: 128, e820: 128, gfn: 2 ** 30, pages: 2 ** 22, name: 128 } as const;
/** Everything is checked when it comes from a stream. */
export type About = {
  readonly nrVcpus: number;
  /** frames it may have, and how many of them are not its memory */
  readonly maxPages: number;
  readonly overheadPages: number;
  readonly e820: readonly E820[];
  readonly storeGfn: number;
  readonly consoleGfn: number;
  readonly targetKiB: number;
  readonly staticMaxKiB: number;
  readonly maxmemMiB: number;
  /** XXH32 of the configuration before the stream */
  readonly configSum: number;
  /** whom both ends of a migration mean: 32 hexadecimal digits; null in a file */
  readonly migration: string | null;
  /** the number by which the guest knows itself, where it may come without having suspended itself: it needs the same one then; null: it will not */
  readonly domid: number | null;
};
/** The part that follows from the domain itself. */
export const aboutOf = (d: Domain): Pick<About, "nrVcpus" | "maxPages" | "e820"> => ({ nrVcpus: d.nrVcpus, maxPages: d.maxPages, e820: d.memoryMap() });

/** The record's body. */
export const encodeAbout = (about: About): Uint8Array => new TextEncoder().encode(JSON.stringify({ version: VERSION, ...about }));
/** @throws StreamError for what is damaged or newer */
export function parseAbout(body: Uint8Array, name: string): About {
  const c = new Checked(name), o = c.json(body), number = c.number.bind(c);
  const version = number("version", o, 1, 2 ** 31);
  if (version > VERSION) throw new StreamError(`The stream was made by a newer Domus (its domain record has version ${version}, this one takes ${VERSION}): take that one`);
  const migration = o["migration"] ?? null;
  if (migration !== null && (typeof migration !== "string" || !/^[0-9a-f]{32}$/.test(migration))) throw new StreamError(`The stream's ${name} has no good migration number: the stream is damaged`);
  return {
    nrVcpus: number("nrVcpus", o, 1, LIMIT.vcpus), maxPages: number("maxPages", o, 1, LIMIT.pages), overheadPages: number("overheadPages", o, 0, LIMIT.pages),
    e820: c.list("e820", o, LIMIT.e820, (entry) => {
      const e = rawOf(entry);
      return { addr: number("addr", e, 0, 2 ** 52), size: number("size", e, 0, 2 ** 52), type: number("type", e, 0, 255) };
    }),
    storeGfn: number("storeGfn", o, 0, LIMIT.gfn - 1), consoleGfn: number("consoleGfn", o, 0, LIMIT.gfn - 1), targetKiB: number("targetKiB", o, 0, 2 ** 32), staticMaxKiB: number("staticMaxKiB", o, 0, 2 ** 32),
    maxmemMiB: number("maxmemMiB", o, 1, 4096), configSum: number("configSum", o, 0, 2 ** 32 - 1), migration,
    domid: (o["domid"] ?? null) === null ? null : number("domid", o, 1, DOMID.FIRST_RESERVED - 1),
  };
}

/** DOMUS_STORE: nodes of the guest's own that no front end makes anew, under its folder in the store: pairs of path and value, each closed by a NUL. */
export type StorePairs = readonly (readonly [path: string, value: string])[];
const PAIRS_MAX = 256, PATH_MAX = 256, VALUE_MAX = 4096;
/** The record's body. */
export const encodePairs = (pairs: StorePairs): Uint8Array => new TextEncoder().encode(pairs.slice(0, PAIRS_MAX).map(([path, value]) => `${path}\0${value}\0`).join(""));
/** @throws StreamError */
export function parsePairs(body: Uint8Array, name: string): StorePairs {
  let words: string[];
  try { words = new TextDecoder("utf-8", { fatal: true }).decode(body).split("\0"); } catch { throw new StreamError(`The stream's ${name} is no text: the stream is damaged`); }
  if (words.pop() !== "" || words.length % 2 || words.length > 2 * PAIRS_MAX) throw new StreamError(`The stream's ${name} is no list of pairs: the stream is damaged`);
  return Array.from({ length: words.length / 2 }, (_, i) => {
    const path = words[2 * i]!, value = words[2 * i + 1]!;
    if (!isOwn(path) || value.length > VALUE_MAX) throw new StreamError(`The stream's ${name} has a node "${path.slice(0, 64)}", which no guest keeps: the stream is damaged`);
    return [path, value] as const;
  });
}
/** May a guest's node of that path, relative to its folder, go with it? */
export const isOwn = (path: string): boolean => path.length <= PATH_MAX && /^(?:control\/feature-[\w-]+|(?:attr|data)\/[\w@:./-]+)$/.test(path) && !path.includes("//") && !path.includes("..");

const PLACE_BYTES = 8;
/** DOMUS_CODE's body: gfn, offset in the page, mode of each place. */
export function encodePlaces(places: readonly CodePlace[]): Uint8Array {
  const dv = new DataView(new ArrayBuffer(places.length * PLACE_BYTES));
  places.forEach(({ gfn, offset, mode }, i) => {
    dv.setUint32(i * PLACE_BYTES, gfn, true);
    dv.setUint16(i * PLACE_BYTES + 4, offset, true);
    dv.setUint16(i * PLACE_BYTES + 6, mode, true);
  });
  return new Uint8Array(dv.buffer);
}
/** Hints: what this version cannot use is left out. */
export function parsePlaces(body: Uint8Array): CodePlace[] {
  const dv = new DataView(body.buffer, body.byteOffset, body.length), n = Math.min(Math.floor(body.length / PLACE_BYTES), CODE_PLACES_MAX);
  return Array.from({ length: n }, (_, i) => ({ gfn: dv.getUint32(i * PLACE_BYTES, true), offset: dv.getUint16(i * PLACE_BYTES + 4, true), mode: dv.getUint16(i * PLACE_BYTES + 6, true) }))
    .filter(({ gfn, offset, mode }) => gfn < LIMIT.gfn && offset < 4096 && isCodeMode(mode));
}
