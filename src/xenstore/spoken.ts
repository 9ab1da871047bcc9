/** A request to the store with its answer as one line, for people who watch. */
import { XS } from "../abi/io/xs_wire.ts";
import { fromBytes, type Packet } from "./wire.ts";

const NAMES = new Map(Object.entries(XS).map(([name, type]) => [type as number, name.toLowerCase()]));
/** Bytes of a payload that are shown. */
const SHOWN_BYTES = 160;
const shown = (bytes: Uint8Array): string => {
  const text = fromBytes(bytes, 0, Math.min(bytes.length, SHOWN_BYTES)).replace(/\0+$/, "").replaceAll("\0", " ").replace(/[^\x20-\x7e]/g, "·");
  return bytes.length > SHOWN_BYTES ? `${text}…` : text;
};

/** "write device/vbd/0/state 3", "read memory/target = 262144", "mkdir attr: EACCES". */
export function requestText(request: Packet, reply: Packet): string {
  const name = NAMES.get(request.type) ?? `operation ${request.type}`, asked = shown(request.payload), answer = shown(reply.payload);
  const said = `${name}${asked === "" ? "" : ` ${asked}`}`;
  if (reply.type === XS.ERROR) return `${said}: ${answer}`;
  return request.type === XS.READ || request.type === XS.DIRECTORY || request.type === XS.GET_PERMS || request.type === XS.TRANSACTION_START || request.type === XS.GET_DOMAIN_PATH ? `${said} = ${answer}` : said;
}
