/** iSCSI's names and addresses: iscsi://[user[%password]@]host[:port]/target/lun, as libiscsi and qemu write them. */
import { UserError } from "../../base/errors.ts";

/** A portal. */
export type IscsiPortal = { readonly host: string; readonly port: number };
/** A logical unit, and what one needs to log in to it. */
export type IscsiAddress = { readonly portal: IscsiPortal; readonly target: string; readonly lun: number; readonly user?: string; readonly secret?: string };

/** iSCSI's TCP port. */
export const ISCSI_PORT = 3260;

/** "host", "host:port", "[v6]:port"; null when it is none. */
export function parsePortal(text: string): IscsiPortal | null {
  const m = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:@[\]\s/]+))(?::(\d{1,5}))?$/.exec(text), port = Number(m?.[3] ?? ISCSI_PORT);
  return m && port >= 1 && port <= 65535 ? { host: m[1] ?? m[2]!, port } : null;
}
/** Is it an iSCSI name: iqn., eui. or naa., at most 223 bytes, nothing that ends a text key? RFC 7143 section 4.2.7. */
export const isIscsiName = (name: string): boolean => /^(?:iqn\.|eui\.|naa\.)[^\s\0=,;/]+$/.test(name) && new TextEncoder().encode(name).length <= 223;

/** @throws UserError */
export function parseIscsiUri(text: string): IscsiAddress {
  const bad = (why: string): UserError => new UserError(`"${text.replace(/%[^@/]*@/, "%...@")}" is no iSCSI address: ${why}. Write iscsi://[USER[%PASSWORD]@]HOST[:PORT]/TARGET/LUN`);
  const m = /^iscsi:\/\/(?:([^@/%]+)(?:%([^@/]*))?@)?([^/@]+)\/([^/]+)\/(\d{1,5})$/.exec(text);
  if (!m) throw bad("it has another form");
  const [, user, secret, at, target, lun] = m, portal = parsePortal(at!);
  if (!portal) throw bad("it names no host and port");
  if (!isIscsiName(target!)) throw bad("its target is no iSCSI name");
  if (Number(lun) > 16383) throw bad("its unit number is greater than 16383");
  return { portal, target: target!, lun: Number(lun), ...(user === undefined ? {} : { user, secret: secret ?? "" }) };
}
