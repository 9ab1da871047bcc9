/** xl's device syntax as we read it (src/toolstack/xldisk.ts, xlvif.ts) against Xen's libraries and Debian's xl. What differs on purpose is stated here, case by case. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../../src/base/errors.ts";
import { type DiskSpec, parseDiskSpec, vdevNumber } from "../../src/toolstack/xldisk.ts";
import { parseP9 } from "../../src/toolstack/xlp9.ts";
import { parseVifSpec, type VifSpec } from "../../src/toolstack/xlvif.ts";
import { Dice } from "../fp-oracle/oracle.node.ts";
import { askLibxlu, askXl, type OracleDisk } from "./oracle.node.ts";

const place = { file: "f", line: 1, column: 1 };
const refusalOr = <T>(of: () => T): T | string => {
  try { return of(); } catch (e) { assert.ok(e instanceof UserError, String(e)); return e.message; }
};

/** libxl's numbers, _libxl_types.h libxl_disk_format, libxl_disk_backend, libxl_disk_specification. */
const FORMATS = ["", "qcow", "qcow2", "vhd", "raw", "empty", "qed"], BACKENDS = [null, "phy", "tap", "qdisk", "standalone"], SPECIFICATIONS = ["xen", "xen", "virtio"];

/** What our words must say where libxlu says these. */
const SAME_FAULT: readonly (readonly [RegExp, RegExp])[] = [
  [/unknown value for (format|access|backendtype|specification)/, /Unknown value ".*" for (format|access|backendtype|specification)/],
  [/unknown value for type/, /Unknown value ".*" for devtype/],
  [/unknown deprecated type/, /Unknown value ".*" for the device type/],
  [/unknown value for colo_port/, /Unknown value ".*" for colo-port/],
  [/([\w-]+) respecified/, /([\w-]+?)(?:type)? is given twice/],
  [/too many positional parameters/, /one positional parameter too many/],
  [/no vdev specified/, /No vdev is given/],
  [/no target specified/, /No target is given/],
  [/unknown deprecated disk prefix/, /Unknown prefix/],
  [/unknown parameter|bad disk syntax/, /Unknown parameter|takes no value|is neither KEY=VALUE/],
];
const IS_ABOUT_EQUALS = /Unknown parameter|takes no value|is neither KEY=VALUE/;

/**
 * What libxl itself refuses after libxlu took it: libxl_device.c libxl__device_disk_set_backend (an empty disk, a file that cannot be there) and the vdev's
 * number. For "hd", a name without a disk, it has the number of the disk before the first, and it takes signs and blanks before numbers: refused here.
 */
const refusedLater = (o: OracleDisk): boolean => {
  const isEmpty = FORMATS[o.format] === "empty", hasTarget = (o.target ?? "") !== "";
  return o.device < 0 || !o.vdev || /^(?:(?:xvd|hd|sd)[0-9]*$|[-+\s])/.test(o.vdev) || (isEmpty ? !o.isCdrom || hasTarget : !hasTarget);
};

function compareDisk(spec: readonly string[], o: OracleDisk): "taken" | "refused" {
  const ours = refusalOr(() => parseDiskSpec(spec, place)), shown = JSON.stringify(spec);
  if (o.error !== null) {
    if (typeof ours !== "string") assert.fail(`${shown}: taken, and libxlu says ${o.error}`);
    const said = / specification: (.*?)(?:: near| in `)/.exec(o.error)?.[1] ?? o.error, same = SAME_FAULT.find(([theirs]) => theirs.test(said));
    assert.ok(same, `${shown}: ${o.error}`);
    // at "x=" libxlu takes x for a positional parameter first, and finds fault with that; an empty vdev is one to libxlu
    if (!IS_ABOUT_EQUALS.test(ours) && !(o.vdev === "" && ours.includes("No vdev is given"))) {
      assert.match(ours, same[1], `${shown}: ${o.error}`);
      assert.equal(same[1].exec(ours)?.[1], same[0].exec(said)?.[1], `${shown}: ${o.error}; ${ours}`);
    }
    return "refused";
  }
  if (refusedLater(o)) { assert.equal(typeof ours, "string", `${shown}: taken, and libxl refuses it`); return "refused"; }
  // libxlu overlooks a last "=" that it cannot read
  if (typeof ours === "string" && IS_ABOUT_EQUALS.test(ours) && spec.some((s) => s.endsWith("="))) return "refused";
  if (typeof ours === "string") assert.fail(`${shown}: ${ours}, and libxl takes it`);
  const { target, format, vdev, device, access, devtype, backendtype, backend, script, directIoSafe, discard, specification, colo } = ours;
  assert.deepEqual({ target, format, vdev, device, access, devtype, backendtype, backend, script, directIoSafe, discard, specification }, {
    target: o.target ?? "", format: FORMATS[o.format], vdev: o.vdev, device: o.device, access: o.isWritable ? "w" : "r", devtype: o.isCdrom ? "cdrom" : "disk",
    backendtype: BACKENDS[o.backendtype], backend: o.backend || null, script: o.script || null, directIoSafe: o.directIoSafe !== 0,
    discard: o.discard < 0 ? o.isWritable !== 0 : o.discard === 1, specification: SPECIFICATIONS[o.specification],
  }, shown);
  assert.deepEqual([colo?.isEnabled ?? false, colo?.host ?? null, colo?.port ?? 0, colo?.export ?? null, colo?.activeDisk ?? null, colo?.hiddenDisk ?? null],
    [o.colo === 1, o.coloHost || null, o.coloPort, o.coloExport || null, o.activeDisk || null, o.hiddenDisk || null], shown);
  return "taken";
}

/** Words that are right, and words that are wrong or cannot stand beside many others. */
type Pool = readonly [fine: readonly string[], odd: readonly string[]];
const TARGETS: Pool = [["/dev/vg/x", "/x.img", "x", "a b", "/dev/disk/by-id/scsi-0", "cdromx", "phys"], ["", "vg0:lv", "foo:/x"]];
const FORMAT_WORDS: Pool = [["", "", "raw", "qcow2", "qcow", "vhd", "qed"], ["empty", "vmdk", "RAW", "raw "]];
const VDEVS: Pool = [["xvda", "xvdb1", "xvdaa", "hda", "hdc", "hdd3", "sda", "sdp15", "hdc:cdrom", "hda:disk", "d0p0", "d5p20", "51712", "0x301"], ["xvda:floppy", "hde", "xvda0", "vda", "", "xvdaaaaaa"]];
const ACCESS: Pool = [["", "r", "ro", "w", "rw"], ["x", "wr"]];
const KEYS: Pool = [["access=r", "access=", "devtype=cdrom", "devtype=disk", "cdrom", "backend=dom", "backend=", "backendtype=phy", "backendtype=qdisk", "backendtype=tap", "backendtype=standalone",
  "script=block-x", "script=a=b", "direct-io-safe", "discard", "no-discard", "specification=virtio", "specification=xen", "colo", "no-colo", "colo-host=h", "colo-port=9000", "colo-export=e", "active-disk=/a",
  "hidden-disk=/h", "vdev=", "format=raw"], ["format=", "format=qcow2", "vdev=xvdb", "vdev=hdc", "access=q", "devtype=dvd", "backendtype=x", "specification=scsi", "colo-port=x", "foo=1", "foo=", "foo=bar", "cdrom=1",
  "Format=raw", "trusted=1", "=", "a b=c"]];
const PREFIXES: Pool = [["phy:", "file:", "tap:", "tap2:", "aio:", "tap:aio:", "ioemu:", "tapdisk:", "raw:", "qcow:", "qcow2:", "vhd:", "iscsi:", "nbd:", "enbd:", "drbd:", "tap:qcow2:"], ["foo:", "vmdk:"]];
const ENDS: Pool = [["", "", "", ","], [",target=/y", ", target=/y,z:w ", ",target=", ",target=/y,", "target=/y"]];

function diskSpec(d: Dice): string[] {
  const pick = (pool: Pool) => d.pick(pool[d.below(16) === 0 ? 1 : 0]), blank = () => (d.below(6) === 0 ? d.pick([" ", "\t", "  ", "\n "]) : "");
  const byName = d.below(4) === 0, words = byName ? [`vdev=${pick(VDEVS)}`] : [pick(TARGETS), pick(FORMAT_WORDS), pick(VDEVS), pick(ACCESS), "r"].slice(0, d.below(12) ? 3 + d.below(2) : d.below(6));
  if (!byName && d.below(3) === 0) { words[0] = pick(PREFIXES) + (words[0] ?? ""); words.splice(1, d.below(6) === 0 ? 0 : 1); }
  for (let n = d.below(4); n > 0; n--) words.splice(d.below(words.length + 1), 0, pick(KEYS));
  if (d.below(20) === 0) words.splice(d.below(words.length + 1), 0, `${pick(PREFIXES)}${pick(VDEVS)}`);
  const end = byName ? d.pick(ENDS[1]) : pick(ENDS), text = words.map((w) => blank() + w).join(",") + end.replace(/^(?=target)/, words.at(-1)?.startsWith("colo-port") ? "," : "");
  const cut = d.below(15) === 0 ? d.below(text.length + 1) : -1;
  return cut < 0 ? [text] : [text.slice(0, cut), text.slice(cut)].filter((t) => t !== "");
}

test("disk specifications mean what libxlu and libxl take them for, or are refused for the same fault", () => {
  const d = new Dice(20261126), known = ["/dev/vg/guest-volume,,hda", "format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume", "raw:/dev/vg/guest-volume,hda,w", "/root/image.iso,,hdc,,cdrom",
    "raw:/root/image.iso,hdc:cdrom,ro", ",hdc:cdrom,r", "", ",", ",,", ",,,", "phy:", "nbd:", "foo:", "target=", "phy:/a=b,xvda", "cdrom", "hdc:cdrom,r", "/x,,xvda,vdev=,vdev=xvdb", "vdev=,/x,,xvda", "nbd+unix:///a,raw,xvda"].map((s) => [s]);
  const specs = [...known, ...Array.from({ length: 6000 }, () => diskSpec(d))].filter((s) => s.length), answers = askLibxlu(specs);
  const counts = { taken: 0, refused: 0 };
  specs.forEach((spec, i) => { counts[compareDisk(spec, answers[i]!)]++; });
  assert.ok(counts.taken > 1500 && counts.refused > 1500, JSON.stringify(counts));
});

test("virtual devices have libxl's numbers", () => {
  const d = new Dice(7), letters = "abcdefghijklmnopqrstuvwxyz", word = (n: number) => Array.from({ length: n }, () => letters[d.below(26)]).join("");
  const names = Array.from({ length: 3000 }, () => {
    const type = d.pick(["xvd", "hd", "sd", "vd"]), part = d.pick(["", `${1 + d.below(20)}`, `${d.below(300)}`, "01"]);
    return d.pick([`${type}${word(1)}${part}`, `${type}${letters[d.below(5)]}${part}`, `${type}${word(1 + d.below(6))}${part}`, `d${d.below(40)}p${d.below(40)}`, `d${d.below(1 << 21)}p${d.below(300)}`,
      `d0x${d.below(99).toString(16)}p0${d.below(8)}`, `${d.below(70000)}`, `0x${d.u32().toString(16)}`, `0${d.below(10000)}`, `${d.u32()}`]);
  });
  const answers = askLibxlu(names.map((n) => [`vdev=${n},target=/x`]));
  names.forEach((name, i) => { assert.equal(vdevNumber(name) ?? -1, answers[i]!.device, name); });
});

test("where a disk is read otherwise than by Debian's libxlu, it is on purpose", () => {
  const mine = (spec: string): DiskSpec | string => refusalOr(() => parseDiskSpec(spec, place)), theirs = (spec: string): OracleDisk => askLibxlu([[spec]])[0]!;
  // the manual of 4.17 has trusted and untrusted, grant_usage is of 4.19; the scanner that Debian's 4.17 was built with has neither
  for (const flag of ["trusted", "untrusted", "grant_usage=1"]) {
    assert.equal(typeof mine(`${flag},/x,raw,xvda`), "object");
    assert.ok(theirs(`${flag},/x,raw,xvda`).error);
  }
  // addresses are ours: to xend "nbd:" was a script
  assert.equal((mine("nbd://h/x,raw,xvda") as DiskSpec).target, "nbd://h/x");
  assert.match(theirs("nbd://h/x,raw,xvda").error!, /unknown value for access/);
  // xen-vbd-interface(7) has d0 without a partition, libxl has not; and libxl counts a disk before the first, and takes signs and blanks
  assert.deepEqual([(mine("/x,raw,d0") as DiskSpec).device, theirs("/x,raw,d0").device], [51712, -1]);
  for (const [vdev, number] of [["xvd1", -15], ["d-1p0", -16], ["hd", 832], [" 5", 5], ["+5", 5]] as const) {
    assert.equal(typeof mine(`vdev=${vdev},target=/x`), "string", vdev);
    assert.equal(theirs(`vdev=${vdev},target=/x`).device, number, vdev);
  }
  assert.deepEqual([typeof mine("/x,raw,xvda,colo-port=12x"), theirs("/x,raw,xvda,colo-port=12x").coloPort], ["string", 12]);
});

const configOf = (vifs: readonly string[]): string => `name = "x"\ntype = "hvm"\nvif = [ ${vifs.map((v) => `"${v.replace(/["\\]/g, "\\$&")}"`).join(", ")} ]\n`;
type Nic = Record<string, string | number | undefined>;

function compareVif(text: string, index: number, v: VifSpec, nic: Nic): void {
  assert.deepEqual({ devid: v.devid, mac: v.isMacGenerated ? undefined : v.mac, bridge: v.bridge, gatewaydev: v.gatewaydev, type: v.type, model: v.model, vifname: v.vifname, script: v.script, ip: v.ip,
    backend: v.backend, bytes: v.rate?.bytesPerInterval ?? 0, interval: v.rate?.intervalUs ?? 0, mtu: v.mtu ?? 0, trusted: v.trusted }, {
    devid: nic["devid"], mac: nic["mac"], bridge: nic["bridge"] || null, gatewaydev: nic["gatewaydev"] || null, type: nic["nictype"] === "vif_ioemu" ? "ioemu" : nic["nictype"] ?? null,
    model: nic["model"] || null, vifname: nic["ifname"] || null, script: nic["script"] || null, ip: `${nic["ip"] ?? ""}`.split(" ").filter((a) => a), backend: nic["backend_domname"] || null,
    bytes: nic["rate_bytes_per_interval"] ?? 0, interval: nic["rate_interval_usecs"] ?? 0, mtu: nic["mtu"] ?? 0, trusted: nic["trusted"] !== "False",
  }, `vif ${index}: "${text}"`);
  for (const [key, value] of Object.entries(v.colo)) assert.equal(nic[key === "forwarddev" ? "coloft_forwarddev" : key], value, `vif ${index}: "${text}"`);
}

const VIF_WORDS = ["bridge=xenbr0", "bridge=br 1", "bridge=", "bridge=x ", "gatewaydev=eth0", "netdev=eth1", "type=vif", "type=ioemu", "model=e1000", "vifname=web0", "script=vif-route", "script=/a=b", "ip=10.0.0.2",
  "ip=10.0.0.2 10.0.0.3", "ip=fe80::1", "backend=net", "accel=1", "mtu=9000", "mtu=1500", "mtu=0", "trusted", "untrusted", "forwarddev=e", "colo_sock_mirror_id=a", "colo_filter_sec_redirector1_outdev=b",
  "colo_checkpoint_port=9", "colo_sock_compare_notify_port=1", "colo_filter_sec_rewriter0_queue=q", ""];
const RATE_UNITS = ["B", "b", "KB", "Kb", "MB", "Mb", "GB", "Gb"], INTERVALS = ["", "", "@50ms", "@20m", "@1000us", "@7u", "@1s", "@2", "@010ms", "@4294s"];
const rateText = (d: Dice): string => `${d.pick(["1", "10", "17", "250", "4294967295", "010", `${1 + d.below(1 << 20)}`])}${d.pick(RATE_UNITS)}/s${d.pick(INTERVALS)}`;

test("vifs mean what xl takes them for", () => {
  const d = new Dice(20261126), hex = (n: number) => n.toString(16)[d.below(2) ? "toUpperCase" : "toLowerCase"]();
  const texts = Array.from({ length: 400 }, () => {
    const words = Array.from({ length: d.below(6) }, () => d.pick(VIF_WORDS));
    if (d.below(2)) words.push(`mac=${[d.below(256) & 0xfe, ...Array.from({ length: 5 }, () => d.below(256))].map(hex).join(":")}`);
    if (d.below(3) === 0) words.push(`rate=${rateText(d)}`);
    return words.map((w) => " ".repeat(d.below(3)) + w).join(",");
  });
  const specs = texts.map((t, i) => refusalOr(() => parseVifSpec(t, place, i)));
  const fine = texts.filter((_, i) => typeof specs[i] !== "string"), answer = askXl(configOf(fine));
  assert.ok(fine.length > 350);
  // the only ones refused are rates that overflow
  texts.forEach((text, i) => { if (typeof specs[i] === "string") assert.equal(askXl(configOf([text])).config, null, `${text}: ${specs[i]}`); });
  assert.equal(answer.config?.nics?.length, fine.length, answer.said);
  fine.forEach((text, i) => { compareVif(text, i, parseVifSpec(text, place, i), answer.config!.nics![i] as Nic); });
});

test("what xl remarks on or refuses in a vif is refused", () => {
  for (const text of ["mac=x", "mac=00:16:3e:01:02:g", "mac=100:0:0:0:0:0", "type=pv", "foo=1", "Bridge=x", "bridge", "trusted=1", "trusted ", "rate=", "rate=1", "rate=0B/s", "rate=1TB/s", "rate=08B/s",
    "rate=4294967296B/s", "rate=4294967295GB/s", "rate=4294967295MB/s@4294s", "rate=1B/s@", "rate=1B/s@0ms", "rate=1B/s@1h", "rate=1B/s@4295s", "rate=1B/s@4294967296us", "devid=x", "mtu=x"]) {
    const xl = askXl(configOf([text]));
    assert.ok(xl.config === null || xl.said !== "", `xl takes "${text}"`);
    assert.equal(typeof refusalOr(() => parseVifSpec(text, place)), text === "rate=" ? "object" : "string", text);
  }
});

test("where a vif is refused that xl takes, it is on purpose", () => {
  // xl reads any six hexadecimal numbers with anything between them, group addresses too; hands the ip on unread; keeps any number; vlan is of Xen 4.19, forward is ours
  for (const text of ["mac=00-16-3e-01-02-03", "mac=01:16:3e:01:02:03", "mac=00:16:3e:01:02:03:04", "ip=somewhere", "mtu=1", "mtu=1500x", "devid=5x"]) {
    const xl = askXl(configOf([text]));
    assert.ok(xl.config !== null && xl.said === "", `xl on "${text}": ${xl.said}`);
    assert.equal(typeof refusalOr(() => parseVifSpec(text, place)), "string", text);
  }
  for (const text of ["vlan=10p/20", "forward=tcp:127.0.0.1:2222-22"]) {
    assert.match(askXl(configOf([text])).said, /unrecognized argument/);
    assert.equal(typeof refusalOr(() => parseVifSpec(text, place)), "object", text);
  }
});

test("of a shared folder xl says the same; what is refused that xl takes is so on purpose", () => {
  const head = 'name = "x"\ntype = "pvh"\nkernel = "/k"\nmemory = 64\n', ask = (...specs: string[]) => askXl(`${head}p9 = [ ${specs.map((s) => `"${s}"`).join(", ")} ]`);
  for (const text of ["tag=src,security_model=none,path=/srv/x", "path=/a b=c, tag=t,security_model=none", "tag=a,tag=b,security_model=none,path=/x", "tag=a,,security_model=none,path=/x,"]) {
    const { tag, path } = parseP9(text, place);
    assert.deepEqual(ask(text).config?.p9s, [{ tag, path, security_model: "none" }], text);
  }
  // xl hands on any model and any tag, an empty one too, and lets a specification have what the one before it said; libxl and QEMU find it later
  for (const text of ["tag=a,security_model=mapped,path=/x", "tag=,security_model=none,path=/x", "tag=a b,security_model=none,path=/x", "tag=a,security_model=none ,path=/x"]) {
    assert.ok(ask(text).config, text);
    assert.equal(typeof refusalOr(() => parseP9(text, place)), "string", text);
  }
  assert.equal(ask("tag=a,security_model=none,path=/x", "tag=b").config?.p9s?.length, 2);
  // ours: at the end xl overlooks it, and reads nothing behind it
  assert.equal(ask("tag=a,security_model=none,path=/x,readonly").config?.p9s?.length, 1);
  assert.equal(ask("readonly,tag=a,security_model=none,path=/x").config, null);
});

test("of the talk's configuration xl says the same: not as printed, but corrected", () => {
  const talk = (vif: string, hdc: string) => `builder='hvm'\nmemory = 512\nname = "winxp"\nvif = [ ${vif} ]\ndisk = [ 'file:/export/winxp/hdc.raw,ioemu:${hdc},w', 'phy:/dev/hda,hdc:cdrom,r' ]\n`;
  assert.match(askXl(talk("'type=ioemu, bridge=xenbr0', mac='a:b:c:d:e:f'", "hda")).said, /:4: config parsing error near `mac'/);
  const { config } = askXl(talk("'type=ioemu, bridge=xenbr0, mac=a:b:c:d:e:f'", "hda"));
  assert.deepEqual(config?.nics, [{ devid: 0, mac: "0a:0b:0c:0d:0e:0f", bridge: "xenbr0", nictype: "vif_ioemu" }]);
  assert.deepEqual(config?.disks, [{ pdev_path: "/export/winxp/hdc.raw", vdev: "hda", format: "raw", readwrite: 1 }, { pdev_path: "/dev/hda", vdev: "hdc", format: "raw", removable: 1, is_cdrom: 1 }]);
});
