/** Permissions of a node: docs/misc/xenstore.txt, "Permissions". */
import { parseNumber, XsRefusal } from "./wire.ts";

/** One entry of a list of permissions. */
export type Perm = { readonly domid: number; readonly read: boolean; readonly write: boolean };
/** The first entry names the owner, who may do everything, and what those may do whom no entry names. */
export type Perms = readonly [Perm, ...Perm[]];
/** What a client may do to a node, as bits. */
export const ACCESS = { read: 1, write: 2, owner: 4 } as const;
/** Who asks: a domain, and the domain whose rights it has besides (SET_TARGET, for a device model). */
export type Who = { readonly domid: number; readonly target: number | undefined };

const LETTERS = { n: [false, false], r: [true, false], w: [false, true], b: [true, true] } as const;

/** "b5" and the like. @throws EINVAL */
export function parsePerm(s: string): Perm {
  const rights = LETTERS[s[0] as keyof typeof LETTERS] as readonly [boolean, boolean] | undefined;
  if (!rights || !Object.hasOwn(LETTERS, s[0]!)) throw new XsRefusal("EINVAL", `Not a permission: "${s.slice(0, 16)}"`);
  return { domid: parseNumber(s.slice(1), 0xffff), read: rights[0], write: rights[1] };
}
/** As on the wire: "b5". */
export const printPerm = (p: Perm): string => `${p.read ? (p.write ? "b" : "r") : p.write ? "w" : "n"}${p.domid}`;
/** @throws EINVAL when the list is empty or an entry is not a permission */
export function parsePerms(list: readonly string[]): Perms {
  const [first, ...others] = list.map(parsePerm);
  if (!first) throw new XsRefusal("EINVAL", "No permission given");
  return [first, ...others];
}

/** What `who` may do, as a sum of ACCESS. */
export function accessOf(perms: Perms, who: Who): number {
  const owner = perms[0];
  if (who.domid === 0 || owner.domid === who.domid || owner.domid === who.target) return ACCESS.read | ACCESS.write | ACCESS.owner;
  const own = perms.slice(1).find((p) => p.domid === who.domid || p.domid === who.target) ?? owner;
  return (own.read ? ACCESS.read : 0) | (own.write ? ACCESS.write : 0);
}
