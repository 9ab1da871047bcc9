/** Paths of the store: docs/misc/xenstore.txt, "Node name". */
import { XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX } from "../abi/io/xs_wire.ts";
import { XsRefusal } from "./wire.ts";

/** Paths that name an occasion; they have a node apart from the tree, for its permissions. */
export const SPECIAL_PATHS = ["@introduceDomain", "@releaseDomain"] as const;
/** Where relative paths of the domain lie. */
export const domainPath = (domid: number): string => `/local/domain/${domid}`;
const ABSOLUTE = /^\/$|^(?:\/[A-Za-z0-9\-_@]+)+$/, SPECIAL = /^@[A-Za-z0-9\-_@]+(?:\/[A-Za-z0-9\-_@]+)*$/;
const DOMAIN_HOME = /^\/local\/domain\/[0-9]{1,5}\//;

/**
 * The absolute form of a path that a client of domain `domid` gave.
 * @throws EINVAL
 */
export function absolute(path: string, domid: number): string {
  const full = path.startsWith("/") ? path : `${domainPath(domid)}/${path}`;
  if (path.startsWith("@") || full.length > XENSTORE_ABS_PATH_MAX || !ABSOLUTE.test(full)) throw new XsRefusal("EINVAL", `Not a path: "${path.slice(0, 64)}"`);
  const home = DOMAIN_HOME.exec(full)?.[0].length;
  if (home !== undefined && full.length - home > XENSTORE_REL_PATH_MAX) throw new XsRefusal("EINVAL", `A path of ${full.length} bytes`);
  return full;
}
/** The same where "@..." is allowed: any may be watched, only SPECIAL_PATHS, and those with "/<domid>" behind, ever occur. @throws EINVAL */
export function absoluteOrSpecial(path: string, domid: number): string {
  if (!path.startsWith("@")) return absolute(path, domid);
  if (path.length > XENSTORE_REL_PATH_MAX || !SPECIAL.test(path)) throw new XsRefusal("EINVAL", `Not an occasion: "${path.slice(0, 64)}"`);
  return path;
}
/** undefined for the root and for special paths. */
export function parentOf(path: string): string | undefined {
  if (path === "/" || path.startsWith("@")) return undefined;
  return path.slice(0, Math.max(1, path.lastIndexOf("/")));
}
/** The last name of a path. */
export const leafOf = (path: string): string => path.slice(path.lastIndexOf("/") + 1);
/** The path of a child. */
export const childOf = (path: string, leaf: string): string => (path === "/" ? `/${leaf}` : `${path}/${leaf}`);
/** Levels that `path` lies below its ancestor `above` (or itself: 0). */
export const levelsBelow = (path: string, above: string): number => {
  const count = (p: string) => (p === "/" ? 0 : p.split("/").length - 1);
  return count(path) - count(above);
};
