/**
 * xl's network interface specifications: `KEY=VALUE` and flags between commas.
 * @see xl-network-configuration(5); tools/xl/xl_parse.c parse_nic_config and tools/libs/util/libxlu_vif.c for what the manual leaves open
 */
import { parseForward } from "../network/nat/forward.ts";
import type { VlanOptions } from "../network/vlan.ts";
import { faultAt, type Place, parseNumber, placeText, type XlValue } from "./xlcfg.ts";
import { nearest } from "./xlkeys.ts";

/** A credit of `bytesPerInterval` is given every `intervalUs` microseconds. Below one byte an interval it is 0, and nothing is ever sent. */
export type VifRate = { readonly bytesPerInterval: number; readonly intervalUs: number };

/** A network interface as a configuration describes it. */
export type VifSpec = {
  readonly place: Place;
  /** as written, for messages */
  readonly text: string;
  /** the index in the list, unless given */
  readonly devid: number;
  /** the guest's address, "00:16:3e:01:02:03" */
  readonly mac: string;
  /** true: nobody gave one, so it was made up and is another one the next time */
  readonly isMacGenerated: boolean;
  /** null: the toolstack's default, xl's "xenbr0" */
  readonly bridge: string | null;
  readonly gatewaydev: string | null;
  /** HVM: "vif" is without an emulated card beside it */
  readonly type: "vif" | "ioemu" | null;
  /** HVM: of the emulated card */
  readonly model: string | null;
  readonly vifname: string | null;
  readonly script: string | null;
  /** IPv4 and IPv6 addresses, perhaps with "/BITS" */
  readonly ip: readonly string[];
  /** a domain's name or number; null: this domain */
  readonly backend: string | null;
  readonly rate: VifRate | null;
  /** bytes of IP payload; null: the bridge's, or 1500 */
  readonly mtu: number | null;
  /** VLANs as written, "10p/20-25/100+10x4"; its syntax was checked (Xen 4.19) */
  readonly vlan: string | null;
  /** the same, read */
  readonly vlans: VlanOptions | null;
  readonly trusted: boolean;
  /** Ours: "tcp:127.0.0.1:2222-22", host address and port, guest port, or one of the guest's addresses before it; the syntax was checked */
  readonly forwards: readonly string[];
  /** COLO's keys as they were given, `forwarddev` among them; Domus has no COLO */
  readonly colo: Readonly<Record<string, string>>;
  /** sentences with their places: what is deprecated, ignored or given twice */
  readonly warnings: readonly string[];
};

const TEXTS = ["bridge", "gatewaydev", "model", "vifname", "script", "backend"] as const;
const COLO = ["forwarddev", "colo_checkpoint_host", "colo_checkpoint_port", "colo_compare_notify_dev", "colo_compare_out", "colo_compare_pri_in", "colo_compare_sec_in",
  "colo_filter_mirror_outdev", "colo_filter_mirror_queue", "colo_filter_sec_rewriter0_queue",
  ...["redirector0", "redirector1", "sec_redirector0", "sec_redirector1"].flatMap((f) => ["queue", "indev", "outdev"].map((k) => `colo_filter_${f}_${k}`)),
  ...["mirror", "compare_pri_in", "compare_sec_in", "compare_notify", "redirector0", "redirector1", "redirector2", "sec_redirector0", "sec_redirector1"]
    .flatMap((s) => ["id", "ip", "port"].map((k) => `colo_sock_${s}_${k}`))];
const KEYS = [...TEXTS, "mac", "netdev", "type", "ip", "rate", "accel", "devid", "mtu", "vlan", "trusted", "untrusted", "forward"];
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
const CONTROL = /[\x00-\x1f\x7f]/;
/** IPv4 requires 68 bytes of every link (RFC 791, 3.2); an IP packet has 65535 at most. */
const MIN_MTU = 68, MAX_MTU = 65535;

/**
 * An address with Xen's OUI, 00:16:3e, the fourth byte's top bit clear.
 * @see libxl_nic.c libxl__device_nic_setdefault
 */
export function randomMac(): string {
  const random = crypto.getRandomValues(new Uint8Array(3));
  random[0]! &= 0x7f;
  return `00:16:3e:${[...random].map((b) => b.toString(16).padStart(2, "0")).join(":")}`;
}

/** @returns the address in its usual form, null for all zeros (which libxl takes as none), or what is wrong with it */
function readMac(text: string): { mac: string | null } | { fault: string } {
  if (!/^[0-9a-f]{1,2}(?::[0-9a-f]{1,2}){5}$/i.test(text)) return { fault: `"${text}" is no MAC address: write six hexadecimal bytes with colons, 00:16:3e:01:02:03` };
  const bytes = text.split(":").map((b) => Number.parseInt(b, 16));
  if (bytes[0]! & 1) return { fault: `"${text}" is a group address: a guest's MAC address has the lowest bit of its first byte clear` };
  return { mac: bytes.every((b) => b === 0) ? null : bytes.map((b) => b.toString(16).padStart(2, "0")).join(":") };
}

/**
 * Read `RATE/s[@INTERVAL]`: bytes (B) or bits (b) with K, M, G of a thousand; microseconds (us), milliseconds (ms) or seconds, 50 ms where absent.
 * @returns what is wrong as a sentence, otherwise
 * @see libxlu_vif.c xlu_vif_parse_rate
 */
export function parseRate(text: string): VifRate | string {
  const at = text.indexOf("@"), bytes = at < 0 ? text : text.slice(0, at), interval = at < 0 ? "50ms" : text.slice(at + 1);
  const rate = /^([0-9]+)([GMK]?)([Bb])\/s$/.exec(bytes), every = /^([0-9]+)([mu]?)s?$/.exec(interval);
  if (!rate) return `"${bytes}" is no rate: write 250KB/s or 10Mb/s, B for bytes and b for bits`;
  if (!every) return `"${interval}" is no interval: write 50ms, 20000us or 1s`;
  const count = parseNumber(rate[1]!), units = parseNumber(every[1]!);
  if (!count || count >= 2 ** 32) return `The rate "${bytes}" is out of range: the number is 1 to 4294967295, and octal where it begins with 0`;
  if (!units || units >= 2 ** 32) return `The interval "${interval}" is out of range: the number is 1 to 4294967295, and octal where it begins with 0`;
  const intervalUs = units * { m: 1000, u: 1, "": 1e6 }[every[2] as "m" | "u" | ""];
  if (intervalUs >= 2 ** 32) return `The interval "${interval}" is longer than 4294 s`;
  const total = BigInt(count) * { G: 10n ** 9n, M: 10n ** 6n, K: 1000n, "": 1n }[rate[2] as "G" | "M" | "K" | ""];
  const product = (rate[3] === "b" ? total / 8n : total) * BigInt(intervalUs);
  if (product >= 1n << 64n) return `"${text}" is out of range: bytes a second times microseconds must fit into 64 bits`;
  return { bytesPerInterval: Number(product / 1_000_000n), intervalUs };
}

function isAddress(text: string): boolean {
  const [address, bits, ...more] = text.split("/") as [string, string?], isV6 = address.includes(":");
  if (more.length || (bits !== undefined && !(/^[0-9]{1,3}$/.test(bits) && Number(bits) <= (isV6 ? 128 : 32)))) return false;
  return isV6 ? /^[0-9a-f:.]+$/i.test(address) && URL.canParse(`http://[${address}]/`) : /^[0-9]{1,3}(?:\.[0-9]{1,3}){3}$/.test(address) && address.split(".").every((b) => Number(b) < 256);
}

/**
 * "10p/20-25/100+10x4": numbers, ranges, and so many at a step; "p" marks the one of untagged frames, "u" those that leave without a tag; a number alone is both.
 * @returns what the port carries, or what is wrong
 * @see xl-network-configuration(5) "vlan" of Xen 4.19
 */
function parseVlans(text: string): VlanOptions | string {
  const terms = text.split("/"), vids = new Set<number>(), pvids: number[] = [];
  for (const term of terms) {
    const [, firstText, last, step, count, mark] = /^([0-9]{1,4})(?:-([0-9]{1,4})|\+([0-9]{1,4})x([0-9]{1,4}))?([pu]?)$/.exec(term) ?? [];
    if (firstText === undefined) return `"${term}" is none of ID, FIRST-LAST and FIRST+OFFSETxCOUNT`;
    const first = Number(firstText), by = Number(step ?? 1), nr = last !== undefined ? Number(last) - first + 1 : count !== undefined ? Number(count) : 1;
    if (first < 1 || nr < 1 || by < 1 || first + (nr - 1) * by > 4094) return `"${term}" leaves 1 to 4094`;
    if (mark === "p" && nr > 1) return `"${term}" is several VLANs; only a single one may be the PVID`;
    for (let i = 0; i < nr; i++) vids.add(first + i * by);
    if (mark === "p" || (terms.length === 1 && nr === 1 && mark === "")) pvids.push(first);
    else if (mark === "u") return `"${term}": untagged frames of another VLAN than the PVID are not built`;
  }
  if (pvids.length !== 1) return `"${text}" marks ${pvids.length} VLANs as the PVID, with "p"; it must be one`;
  const native = pvids[0]!;
  return vids.size === 1 ? { access: native } : { trunk: [...vids].filter((vid) => vid !== native), native };
}

function forwardFault(text: string): string | null {
  const [, hostPort, guest, guestPort] = /^(?:tcp|udp):[^\s-]*:([0-9]{1,5})-([^\s-]*:)?([0-9]{1,5})$/.exec(text) ?? [];
  const isPort = (p: string | undefined): boolean => p !== undefined && Number(p) >= 1 && Number(p) <= 65535;
  if (!isPort(hostPort) || !isPort(guestPort)) return `"${text}" is not tcp:HOSTADDR:HOSTPORT-GUESTPORT`;
  if (guest === undefined) return null;
  try {
    return "address" in parseForward(text).target ? null : `"${text}" is neither tcp:HOSTADDR:HOSTPORT-GUESTPORT nor tcp:HOSTADDR:HOSTPORT-GUESTADDR:GUESTPORT`;
  } catch (e) {
    return (e as Error).message;
  }
}

/**
 * Read a vif specification. As in xl, blanks before a parameter are skipped and those after it are the value's, an empty value is none, and of a key
 * given twice the last holds; unlike xl's, a fault in a file is a fault and no remark.
 * @param index its place in the list, from 0
 * @throws UserError at `place`, naming the word that is wrong
 */
export function parseVifSpec(text: string, place: Place, index = 0): VifSpec {
  const given = new Map<string, string>(), forwards: string[] = [], warnings: string[] = [];
  const fault = (what: string) => faultAt(place, `vif: ${what}, in "${text.length > 200 ? `${text.slice(0, 200)}...` : text}"`);
  const warn = (what: string) => warnings.push(`${placeText(place)}: vif: ${what}`);
  let trusted = true;
  for (const token of text.split(",").map((t) => t.replace(/^ +/, ""))) {
    if (token === "") continue;
    if (CONTROL.test(token)) throw fault(`There is a control character in ${JSON.stringify(token)}`);
    if (token === "trusted" || token === "untrusted") { trusted = token === "trusted"; continue; }
    const equals = token.indexOf("="), word = equals < 0 ? token : token.slice(0, equals), value = token.slice(equals + 1);
    if (equals < 0 || !(KEYS.includes(word) || COLO.includes(word)) || word === "trusted" || word === "untrusted") {
      const near = nearest(word, [...KEYS, ...COLO]);
      throw fault(KEYS.includes(word) ? `"${word}" ${equals < 0 ? "needs a value" : "takes no value"}` : `Unknown parameter "${word}"${near ? `; did you mean "${near}"?` : ""}`);
    }
    if (word === "forward") {
      const wrong = forwardFault(value);
      if (wrong) throw fault(`forward: ${wrong}`);
      forwards.push(value);
      continue;
    }
    if (word === "accel") { warn('"accel" is not supported and ignored'); continue; }
    if (word === "netdev") warn('"netdev" is deprecated; write "gatewaydev"');
    const key = word === "netdev" ? "gatewaydev" : word;
    if (given.has(key)) warn(`${key} is given twice; "${value}" holds, not "${given.get(key)}"`);
    given.set(key, value);
  }

  const string = (key: string): string | null => given.get(key) || null;
  const number = (key: string, min: number, max: number): number | null => {
    const value = string(key), n = value !== null && /^[0-9]{1,10}$/.test(value) ? Number(value) : Number.NaN;
    if (value === null) return null;
    if (!(n >= min && n <= max)) throw fault(`${key}: "${value}" is no number from ${min} to ${max}`);
    return n;
  };
  const type = string("type"), rateText = string("rate"), vlan = string("vlan"), ip = (string("ip") ?? "").split(" ").filter((a) => a !== "");
  if (type !== null && type !== "vif" && type !== "ioemu") throw fault(`type: "${type}" is neither vif nor ioemu`);
  const mac = given.has("mac") ? readMac(given.get("mac")!) : { mac: null }, rate = rateText === null ? null : parseRate(rateText), vlans = vlan === null ? null : parseVlans(vlan);
  if ("fault" in mac) throw fault(`mac: ${mac.fault}`);
  if (typeof rate === "string") throw fault(`rate: ${rate}`);
  if (typeof vlans === "string") throw fault(`vlan: ${vlans}`);
  const noAddress = ip.find((a) => !isAddress(a));
  if (noAddress !== undefined) throw fault(`ip: "${noAddress}" is no IP address`);
  const mtu = given.get("mtu") === "0" ? null : number("mtu", MIN_MTU, MAX_MTU);
  return {
    place, text, devid: number("devid", 0, 2 ** 31 - 1) ?? index, mac: mac.mac ?? randomMac(), isMacGenerated: mac.mac === null, bridge: string("bridge"), gatewaydev: string("gatewaydev"),
    type, model: string("model"), vifname: string("vifname"), script: string("script"), ip, backend: string("backend"), rate, mtu, vlan, vlans, trusted, forwards,
    colo: Object.fromEntries(COLO.filter((k) => given.get(k)).map((k) => [k, given.get(k)!])), warnings,
  };
}

/** Read the value of `vif = [ ... ]`. @throws UserError at the place of the fault */
export function parseVifs(value: XlValue): VifSpec[] {
  if (value.kind !== "list") throw faultAt(value.place, 'vif: Expected a list of strings: vif = [ "bridge=xenbr0", ... ]');
  const vifs = value.items.map((item, index) => {
    if (item.kind !== "string") throw faultAt(item.place, `vif: Expected a string, found a ${item.kind}`);
    return parseVifSpec(item.text, item.place, index);
  });
  const taken = new Map<string, VifSpec>();
  for (const vif of vifs) {
    for (const what of [`devid ${vif.devid}`, ...(vif.isMacGenerated ? [] : [`mac ${vif.mac}`])]) {
      const other = taken.get(what);
      if (other) throw faultAt(vif.place, `vif: ${what} is taken already, by "${other.text}" at ${placeText(other.place)}`);
      taken.set(what, vif);
    }
  }
  return vifs;
}
