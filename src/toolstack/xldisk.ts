/**
 * xl's disk specifications: `[TARGET[,FORMAT[,VDEV[,ACCESS]]]]`, keys and flags between commas, `target=` that takes the rest, xend's prefixes;
 * and the names and numbers of virtual devices.
 * @see xl-disk-configuration(5), xen-vbd-interface(7); tools/libs/util/libxlu_disk_l.l for what the manual leaves open
 */
import type { UserError } from "../base/errors.ts";
import { faultAt, type Place, parseNumber, placeText, type XlValue } from "./xlcfg.ts";
import { nearest } from "./xlkeys.ts";

const DISK_FORMATS = ["raw", "qcow", "qcow2", "vhd", "qed", "empty"] as const;
const BACKEND_TYPES = ["phy", "qdisk", "tap", "standalone"] as const;
const SPECIFICATIONS = ["xen", "virtio"] as const;
/** An image's format, libxl_disk_format; "empty" is a CD drive without a disc. */
export type DiskFormat = (typeof DISK_FORMATS)[number];
/** libxl_disk_backend. */
export type DiskBackendType = (typeof BACKEND_TYPES)[number];
/** What the guest sees: a Xen block device or virtio-blk, libxl_disk_specification. */
export type DiskSpecification = (typeof SPECIFICATIONS)[number];

/** COLO's keys as they were given; Domus has no COLO. */
export type DiskColo = {
  readonly isEnabled: boolean;
  readonly host: string | null;
  readonly port: number | null;
  readonly export: string | null;
  readonly activeDisk: string | null;
  readonly hiddenDisk: string | null;
};

/** A disk as a configuration describes it, defaults filled in as libxl_disk.c libxl__device_disk_setdefault does. */
export type DiskSpec = {
  readonly place: Place;
  /** as written, for messages */
  readonly text: string;
  /** a path, an address (`nbd://`, `nbd+unix://`, `iscsi://`) or what `script` understands; "" in an empty drive. Whoever opens it decides. */
  readonly target: string;
  readonly format: DiskFormat;
  /** as written: "xvda", "hdc1", "d0p0", "51712" */
  readonly vdev: string;
  /** the virtual device number that goes to xenstore, see `vdevNumber` */
  readonly device: number;
  readonly access: "r" | "w";
  readonly devtype: "disk" | "cdrom";
  /** null: the toolstack chooses */
  readonly backendtype: DiskBackendType | null;
  /** a domain's name or number; null: this domain */
  readonly backend: string | null;
  readonly script: string | null;
  readonly directIoSafe: boolean;
  readonly discard: boolean;
  readonly trusted: boolean;
  readonly specification: DiskSpecification;
  /** virtio only; null: granted exactly where the back end is another domain's (Xen 4.19) */
  readonly grantUsage: boolean | null;
  readonly colo: DiskColo | null;
  /** sentences with their places: what is deprecated */
  readonly warnings: readonly string[];
};

/** What a virtual device number means. Partition 0 is the whole disk. */
export type Vdev = { readonly type: "xvd" | "hd" | "sd"; readonly disk: number; readonly partition: number };

const EXTENDED = 1 << 28, MAX_DISKS = 1 << 20, MAX_PARTITIONS = 256;
/** How many disks and partitions each name has room for. */
const ROOM = { xvd: { disks: MAX_DISKS, partitions: MAX_PARTITIONS }, sd: { disks: 16, partitions: 16 }, hd: { disks: 4, partitions: 64 } } as const;

const diskOf = (letters: string): number => [...letters].reduce((n, c) => (n + 1) * 26 + c.charCodeAt(0) - 97, -1);
const lettersOf = (disk: number): string => (disk >= 26 ? lettersOf(Math.floor(disk / 26) - 1) : "") + String.fromCharCode(97 + (disk % 26));

/**
 * The virtual device number of `xvda1`, `hdc`, `sdb`, `d0`, `d0p1` or a number as such; null where the text is none of them.
 * @see xen-vbd-interface(7) "Concrete encoding"; libxl_device.c libxl__device_disk_dev_number
 */
export function vdevNumber(vdev: string): number | null {
  const named = /^(xvd|hd|sd)([a-z]{1,5})([1-9][0-9]{0,2})?$/.exec(vdev), numbered = /^d([0-9a-fx]{1,10})(?:p([0-9a-fx]{1,10}))?$/i.exec(vdev);
  if (!named && !numbered) {
    const n = parseNumber(vdev);
    return n !== null && n < 2 ** 31 ? n : null;
  }
  const type = (named?.[1] ?? "xvd") as Vdev["type"];
  const disk = named ? diskOf(named[2]!) : parseNumber(numbered![1]!), partition = named ? Number(named[3] ?? 0) : parseNumber(numbered![2] ?? "0");
  if (disk === null || partition === null || disk >= ROOM[type].disks || partition >= ROOM[type].partitions) return null;
  if (type === "hd") return ((disk < 2 ? 3 : 22) << 8) | ((disk & 1) << 6) | partition;
  if (type === "sd") return (8 << 8) | (disk << 4) | partition;
  return disk < 16 && partition < 16 ? (202 << 8) | (disk << 4) | partition : EXTENDED | (disk << 8) | partition;
}

/** What a virtual device number means, or null for one that is reserved, deprecated or not in its shortest form. */
export function vdevOf(device: number): Vdev | null {
  if (!Number.isInteger(device) || device < 0 || device >= EXTENDED * 2) return null;
  const disk = (device >> 8) & (MAX_DISKS - 1), partition = device & 0xff;
  if (device >= EXTENDED) return disk < 16 && partition < 16 ? null : { type: "xvd", disk, partition };
  switch (device >> 8) {
    case 202: return { type: "xvd", disk: partition >> 4, partition: partition & 15 };
    case 8: return { type: "sd", disk: partition >> 4, partition: partition & 15 };
    case 3: case 22: return partition < 128 ? { type: "hd", disk: (partition >> 6) + (device >> 8 === 3 ? 0 : 2), partition: partition & 63 } : null;
    default: return null;
  }
}

/** The name that `vdevNumber` takes back to this number: `xvda1`, or the number in decimal where it has no name. */
export function vdevName(device: number): string {
  const v = vdevOf(device);
  return v ? `${v.type}${lettersOf(v.disk)}${v.partition || ""}` : `${device}`;
}

/** Of xend; stripped. The first three name the format, the next four a script `block-NAME`, the rest once named a back end. */
const FORMAT_PREFIXES = ["raw", "qcow", "qcow2", "vhd"], SCRIPT_PREFIXES = ["iscsi", "nbd", "enbd", "drbd"];
const IGNORED_PREFIXES = ["tapdisk", "tap", "tap2", "aio", "ioemu", "file", "phy"];
/** Ours: an address as the first positional parameter is a target and no xend prefix. It ends at a comma, and may have "=" in it. */
const ADDRESS = /^(?:nbds?|nbds?\+unix|iscsi):\/\//;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/;

/** Parameters while they are being collected; null and "" are "not yet", as in libxlu. */
class Draft {
  readonly text: string;
  readonly place: Place;
  readonly warnings: string[] = [];
  readonly strings = new Map<string, string>();
  format: DiskFormat | null = null;
  backendtype: DiskBackendType | null = null;
  specification: DiskSpecification | null = null;
  isReadonly = false;
  isCdrom = false;
  directIoSafe = false;
  discard: boolean | null = null;
  trusted = true;
  grantUsage: boolean | null = null;
  colo: boolean | null = null;
  coloPort: number | null = null;
  hadPrefix = false;
  hadAccess = false;

  constructor(text: string, place: Place) {
    this.text = text;
    this.place = place;
  }

  fault(what: string): UserError { return faultAt(this.place, `disk: ${what}, in "${this.text.length > 200 ? `${this.text.slice(0, 200)}...` : this.text}"`); }

  /** Set a text that may be given once; an empty one may be given again. */
  once(key: string, value: string): void {
    if (this.strings.get(key)) throw this.fault(`${key} is given twice: "${this.strings.get(key)}" and "${value}"`);
    if (CONTROL.test(value)) throw this.fault(`${key} has a line end or control character in it`);
    this.strings.set(key, value);
  }
  /** One of a list's words; not a different one than before. */
  word<T extends string>(key: string, value: string, known: readonly T[], before: T | null): T {
    const found = known.find((k) => k === value), near = found ? null : nearest(value, known);
    if (!found) throw this.fault(`Unknown value "${value}" for ${key}${near ? `; did you mean "${near}"?` : `: write ${known.join(", ")}`}`);
    if (before && before !== found) throw this.fault(`${key} is given twice: "${before}" and "${found}"`);
    return found;
  }
  setFormat(value: string): void { this.format = this.word("format", value || "raw", DISK_FORMATS, this.format); }
  setAccess(value: string): void {
    if (!["r", "ro", "w", "rw", ""].includes(value)) throw this.fault(`Unknown value "${value}" for access: write r, ro, w or rw`);
    this.isReadonly = value.startsWith("r") && value !== "rw";
  }
  /** xend's `VDEV:DEVTYPE` in the place of the vdev. */
  vdevAndType(word: string): boolean {
    const colon = word.lastIndexOf(":");
    if (colon < 0) return false;
    const devtype = word.slice(colon + 1);
    this.once("vdev", word.slice(0, colon));
    this.isCdrom = this.word("the device type", devtype, ["disk", "cdrom"], null) === "cdrom";
    this.warn(`"${word}" is deprecated; write "${word.slice(0, colon)}"${this.isCdrom ? ' and "devtype=cdrom"' : ""}`);
    return true;
  }
  warn(what: string): void { this.warnings.push(`${placeText(this.place)}: disk: ${what}`); }

  /** A word without a key goes to the first of target, format, vdev and access that is still open; xend's prefixes leave no place for a format. */
  positional(word: string): void {
    if (!this.strings.has("target")) this.once("target", word);
    else if (!this.hadPrefix && this.format === null) {
      if (this.strings.get("target") === "" && this.vdevAndType(word)) this.format = "empty";
      else this.setFormat(word);
    } else if (!this.strings.has("vdev")) {
      if (!this.vdevAndType(word)) this.once("vdev", word);
    } else if (!this.hadAccess) {
      this.hadAccess = true;
      this.setAccess(word);
    } else throw this.fault(`"${word}" is one positional parameter too many after target, format, vdev and access`);
  }

  /** @returns how much of `rest` a prefix takes: 0 where there is none */
  prefix(rest: string): number {
    const name = /^([a-z][a-z0-9]*):/.exec(rest)?.[1];
    if (name === undefined || (!this.strings.has("target") && ADDRESS.test(rest))) return 0;
    const isFormat = FORMAT_PREFIXES.includes(name), isScript = SCRIPT_PREFIXES.includes(name);
    if (!isFormat && !isScript && !IGNORED_PREFIXES.includes(name)) {
      // "hdc:cdrom" is a word; "foo:/path" was meant as a prefix
      if (/^[a-z0-9]/.test(rest.slice(name.length + 1))) return 0;
      throw this.fault(`Unknown prefix "${name}:"; a target with a colon in it is written last, as target=...`);
    }
    this.hadPrefix = true;
    if (isFormat) this.setFormat(name);
    if (isScript) this.once("script", `block-${name}`);
    this.warn(`The prefix "${name}:" is deprecated; ${isFormat ? `write "format=${name}"` : isScript ? `write "script=block-${name}"` : "leave it out"}`);
    return name.length + 1;
  }
}

const TEXTS = ["backend", "vdev", "script", "colo-host", "colo-export", "active-disk", "hidden-disk"];
const KEYS: Readonly<Record<string, (d: Draft, value: string) => void>> = {
  format: (d, v) => d.setFormat(v),
  access: (d, v) => d.setAccess(v),
  devtype: (d, v) => { d.isCdrom = d.word("devtype", v, ["disk", "cdrom"], null) === "cdrom"; },
  backendtype: (d, v) => { d.backendtype = d.word("backendtype", v, BACKEND_TYPES, d.backendtype); },
  specification: (d, v) => { d.specification = d.word("specification", v, SPECIFICATIONS, d.specification); },
  grant_usage: (d, v) => { d.grantUsage = d.word("grant_usage", v, ["0", "1"], null) === "1"; },
  "colo-port": (d, v) => {
    const port = /^[0-9]{1,5}$/.test(v) ? Number(v) : 0;
    if (port === 0 || port > 65535) throw d.fault(`Unknown value "${v}" for colo-port: write 1 to 65535`);
    d.coloPort = port;
  },
  ...Object.fromEntries(TEXTS.map((key) => [key, (d: Draft, v: string) => d.once(key, v)])),
};
const FLAGS: Readonly<Record<string, (d: Draft) => void>> = {
  cdrom: (d) => { d.isCdrom = true; },
  "direct-io-safe": (d) => { d.directIoSafe = true; },
  discard: (d) => { d.discard = true; },
  "no-discard": (d) => { d.discard = false; },
  trusted: (d) => { d.trusted = true; },
  untrusted: (d) => { d.trusted = false; },
  colo: (d) => { d.colo = true; },
  "no-colo": (d) => { d.colo = false; },
};

/** Collect the parameters of one string. */
function scan(draft: Draft, text: string): void {
  for (let at = 0; ;) {
    while (at < text.length && " \t\n".includes(text[at]!)) at++;
    if (at === text.length) return;
    const rest = text.slice(at);
    if (rest.startsWith("target=")) return draft.once("target", rest.slice(7).replace(/,$/, ""));
    const taken = draft.prefix(rest);
    if (taken) { at += taken; continue; }
    const comma = rest.indexOf(","), word = comma < 0 ? rest : rest.slice(0, comma), equals = word.indexOf("=");
    at += comma < 0 ? word.length : comma + 1;
    const key = equals < 0 ? word : word.slice(0, equals), takes = equals < 0 ? FLAGS : KEYS;
    if (!draft.strings.has("target") && ADDRESS.test(word)) draft.once("target", word);
    else if (Object.hasOwn(takes, key)) takes[key]!(draft, word.slice(equals + 1));
    else if (equals < 0) draft.positional(word);
    else if (Object.hasOwn(FLAGS, key)) throw draft.fault(`"${key}" takes no value`);
    else if (/^[A-Za-z][\w-]*$/.test(key)) {
      const near = nearest(key, [...Object.keys(KEYS), "target"]);
      throw draft.fault(`Unknown parameter "${key}"${near ? `; did you mean "${near}"?` : ""}`);
    } else throw draft.fault(`"${word}" is neither KEY=VALUE nor a positional parameter; a target with "=" in it is written last, as target=...`);
  }
}

/**
 * Read a disk specification. Several strings, as `block-attach` has them, describe one disk together.
 * @throws UserError at `place`, naming the word that is wrong
 */
export function parseDiskSpec(text: string | readonly string[], place: Place): DiskSpec {
  const texts = typeof text === "string" ? [text] : text, draft = new Draft(texts.join(" "), place), given = (key: string): string | null => draft.strings.get(key) || null;
  for (const t of texts) scan(draft, t);

  const target = draft.strings.get("target") ?? "", vdev = given("vdev"), isCdrom = draft.isCdrom, isReadonly = isCdrom || draft.isReadonly;
  const format = isCdrom && target === "" ? "empty" : draft.format ?? "raw";
  if (vdev === null) throw draft.fault("No vdev is given: write xvda, hda, sda ... after target and format");
  if (format === "empty" && !isCdrom) throw draft.fault(`${vdev} is empty and not a CD drive: only devtype=cdrom may lack a target`);
  if (format === "empty" && target !== "") throw draft.fault(`The format of ${vdev} is "empty", and yet it has the target "${target}"`);
  if (target === "" && format !== "empty") throw draft.fault(`No target is given for ${vdev}; only a CD drive may be empty`);
  const device = vdevNumber(vdev);
  if (device === null) throw draft.fault(`"${vdev}" is no virtual device: write xvda, hda to hdd, sda to sdp, d0p0, or a number`);

  const coloTexts = { host: given("colo-host"), port: draft.coloPort, export: given("colo-export"), activeDisk: given("active-disk"), hiddenDisk: given("hidden-disk") };
  const hasColo = draft.colo !== null || Object.values(coloTexts).some((v) => v !== null);
  return {
    place, text: draft.text, target, format, vdev, device, access: isReadonly ? "r" : "w", devtype: isCdrom ? "cdrom" : "disk", backendtype: draft.backendtype,
    backend: given("backend"), script: given("script"), directIoSafe: draft.directIoSafe, discard: draft.discard ?? !isReadonly, trusted: draft.trusted,
    specification: draft.specification ?? "xen", grantUsage: draft.grantUsage, colo: hasColo ? { isEnabled: draft.colo ?? false, ...coloTexts } : null, warnings: draft.warnings,
  };
}

/** Refuse two disks at one virtual device. @throws UserError at the second one's place */
export function checkVdevs(disks: readonly DiskSpec[]): void {
  const first = new Map<number, DiskSpec>();
  for (const disk of disks) {
    const other = first.get(disk.device);
    if (other) throw faultAt(disk.place, `disk: ${disk.vdev} is taken already, by "${other.text}" at ${placeText(other.place)}${other.vdev === disk.vdev ? "" : ` as ${other.vdev}`}`);
    first.set(disk.device, disk);
  }
}

/** Read the value of `disk = [ ... ]`. @throws UserError at the place of the fault */
export function parseDisks(value: XlValue): DiskSpec[] {
  if (value.kind !== "list") throw faultAt(value.place, 'disk: Expected a list of strings: disk = [ "TARGET,FORMAT,VDEV,ACCESS", ... ]');
  const disks = value.items.map((item) => {
    if (item.kind !== "string") throw faultAt(item.place, `disk: Expected a string, found a ${item.kind}`);
    return parseDiskSpec(item.text, item.place);
  });
  checkVdevs(disks);
  return disks;
}
