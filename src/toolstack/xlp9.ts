/**
 * xl's shared folders: `p9 = [ "tag=TAG,security_model=none,path=FOLDER" ]`.
 * @see xl.cfg(5) "p9"; tools/xl/xl_parse.c parse_config_data for what the manual leaves open
 */
import { faultAt, type Place, placeText, type XlValue } from "./xlcfg.ts";
import { nearest } from "./xlkeys.ts";

/** A shared folder as a configuration describes it. */
export type P9Spec = {
  readonly place: Place;
  /** what the guest mounts it by */
  readonly tag: string;
  /** the host's folder */
  readonly path: string;
  /** Ours: the guest may change nothing */
  readonly isReadonly: boolean;
};
const KEYS = ["tag", "security_model", "path", "backend"] as const;
type Key = (typeof KEYS)[number];
/** A tag is a word of a mount's options, and a node in the store. */
const TAG = /^[^\s,\x00-\x1f\x7f]{1,63}$/;

/** What is wrong with a tag, or null. */
export const tagFault = (tag: string): string | null => (TAG.test(tag) ? null : `"${tag}" is no tag: 1 to 63 characters without blanks and commas`);
/** A folder's specification, its fields checked, from wherever they come. @throws UserError at the place */
export function p9Spec(place: Place, fields: Partial<Readonly<Record<Key, string>>>, isReadonly: boolean): P9Spec {
  const fault = (what: string): Error => faultAt(place, `p9: ${what}`), { tag, path, security_model: model, backend = "" } = fields;
  for (const key of ["tag", "security_model", "path"] as const) if (!fields[key]) throw fault(`No ${key} is given; write "tag=NAME,security_model=none,path=FOLDER"`);
  const wrongTag = tagFault(tag!);
  if (wrongTag !== null) throw fault(`tag: ${wrongTag}`);
  if (model !== "none") throw fault(`security_model=${model} is not built; write security_model=none: files belong to who runs Domus, or to whom root lets them belong`);
  if (backend !== "" && backend !== "0" && backend !== "Domain-0") throw fault(`backend=${backend}: folders of driver domains are not built yet`);
  if (/[\x00-\x1f\x7f]/.test(path!)) throw fault("path: A control character stands in it");
  return { place, tag: tag!, path: path!, isReadonly };
}

/** Read the value of `p9 = [ ... ]`. @throws UserError at the place of the fault */
export function parseP9s(value: XlValue, warnings: string[]): P9Spec[] {
  if (value.kind !== "list") throw faultAt(value.place, 'p9: Expected a list of strings: p9 = [ "tag=src,security_model=none,path=/home/me/src" ]');
  const specs: P9Spec[] = [];
  for (const item of value.items) {
    if (item.kind !== "string") throw faultAt(item.place, `p9: Expected a string, found a ${item.kind}`);
    const spec = parseP9(item.text, item.place, warnings), other = specs.find((s) => s.tag === spec.tag);
    if (other) throw faultAt(item.place, `p9: tag "${spec.tag}" is taken already, at ${placeText(other.place)}`);
    specs.push(spec);
  }
  return specs;
}
/** Read one of them. @throws UserError at the place of the fault */
export function parseP9(text: string, place: Place, warnings: string[] = []): P9Spec {
  const fields: Partial<Record<Key, string>> = {};
  let isReadonly = false;
  for (const word of text.split(",").map((w) => w.replace(/^ +/, ""))) {
    const equals = word.indexOf("="), key = equals < 0 ? word : word.slice(0, equals), known = KEYS.find((k) => k === key);
    if (word === "") continue;
    if (word === "readonly") { isReadonly = true; continue; }
    if (!known || equals < 0) {
      const near = nearest(key.trim(), [...KEYS, "readonly"]);
      throw faultAt(place, `p9: ${equals < 0 ? `"${word}" is neither KEY=VALUE nor readonly` : `Unknown key "${key}"`}${near && near !== key ? `; did you mean "${near}"?` : ""}`);
    }
    if (fields[known] !== undefined) warnings.push(`${placeText(place)}: p9: ${known} is given twice; "${word.slice(equals + 1)}" holds`);
    fields[known] = word.slice(equals + 1);
  }
  return p9Spec(place, fields, isReadonly);
}
