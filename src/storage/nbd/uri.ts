/** NBD's URIs: the NetworkBlockDevice project's doc/uri.md. */
import { UserError } from "../../base/errors.ts";
import { addressName, type StreamAddress } from "../../base/stream.ts";
import { NAME_BYTES_MAX } from "./protocol.ts";

/** Where an export is. */
export type NbdAddress = { readonly at: StreamAddress; readonly exportName: string };

/** nbd://host[:port]/export and nbd+unix:///export?socket=PATH; percent signs escape. @throws UserError */
export function parseNbdUri(text: string): NbdAddress {
  const bad = (why: string): UserError => new UserError(`"${text}" is no NBD address: ${why}. Write nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH`);
  const m = /^(nbds?(?:\+unix)?):\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/.exec(text);
  if (!m) throw bad("it has another form");
  const [, scheme, authority, path = "", query = ""] = m;
  if (scheme!.startsWith("nbds")) throw bad("TLS is not supported");
  let exportName: string;
  try { exportName = decodeURIComponent(path); } catch { throw bad("a percent sign escapes nothing"); }
  if (new TextEncoder().encode(exportName).length > NAME_BYTES_MAX) throw bad(`the export's name is longer than ${NAME_BYTES_MAX} bytes`);
  if (scheme === "nbd+unix") {
    if (authority) throw bad("a Unix socket has no host");
    const socket = new URLSearchParams(query.replaceAll("+", "%2B")).get("socket");
    if (!socket) throw bad("it names no socket");
    return { at: { path: socket }, exportName };
  }
  const a = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:@[\]]+))(?::(\d{1,5}))?$/.exec(authority!);
  const port = Number(a?.[3] ?? 10809);
  if (!a || port < 1 || port > 65535) throw bad("it names no host and port");
  return { at: { host: a[1] ?? decodeURIComponent(a[2]!), port }, exportName };
}
/** The address as a URI. */
export const nbdUri = (a: NbdAddress): string => ("path" in a.at
  ? `nbd+unix:///${encodeURIComponent(a.exportName)}?socket=${encodeURIComponent(a.at.path).replaceAll("%2F", "/")}` : `nbd://${addressName(a.at)}/${encodeURIComponent(a.exportName)}`);
