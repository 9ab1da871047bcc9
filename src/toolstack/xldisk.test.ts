import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../base/errors.ts";
import { parseXlCfg } from "./xlcfg.ts";
import { type DiskSpec, parseDisks, parseDiskSpec, vdevName, vdevNumber, vdevOf } from "./xldisk.ts";

const place = { file: "f", line: 3, column: 9 };
const read = (...texts: string[]): DiskSpec => parseDiskSpec(texts.length === 1 ? texts[0]! : texts, place);
/** What a disk is, without how it was written. */
const meaning = (...texts: string[]): Partial<DiskSpec> => { const { text: _text, warnings: _warnings, ...rest } = read(...texts); return rest; };
const disksOf = (cfg: string): DiskSpec[] => parseDisks(parseXlCfg(cfg, "f").get("disk")!.value);
const fault = (of: () => unknown): string => {
  try { of(); } catch (e) { assert.ok(e instanceof UserError, String(e)); return e.message; }
  return "no fault";
};

test("the equivalent strings of xl-disk-configuration(5) are equivalent", () => {
  for (const [first, ...others] of [
    ["/dev/vg/guest-volume,,hda", "/dev/vg/guest-volume,raw,hda,rw", "format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume", "raw:/dev/vg/guest-volume,hda,w"],
    ["/root/image.iso,,hdc,cdrom", "/root/image.iso,,hdc,,cdrom", "/root/image.iso,raw,hdc,devtype=cdrom", "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso",
      "raw:/root/image.iso,hdc:cdrom,ro"],
    [",empty,hdc,cdrom", ",,hdc,cdrom", "vdev=hdc,cdrom", ",hdc:cdrom,r", ",hdc:cdrom,w", "cdrom,vdev=hdc,target="],
  ]) for (const other of others) assert.deepEqual(meaning(other), meaning(first!), other);
});

test("what is not given has libxl's defaults", () => {
  assert.deepEqual(read("/x,,xvda"), {
    place, text: "/x,,xvda", target: "/x", format: "raw", vdev: "xvda", device: 51712, access: "w", devtype: "disk", backendtype: null, backend: null, script: null,
    directIoSafe: false, discard: true, trusted: true, specification: "xen", grantUsage: null, colo: null, warnings: [],
  });
  assert.equal(read("/x,,xvda,ro").discard, false);
  assert.equal(read("/x,,xvda,ro,discard").discard, true);
});

test("every key and flag of the manual is read", () => {
  const d = read("vdev=d1p2, format=qed,backendtype=qdisk,backend=storage,script=block-x,direct-io-safe,no-discard,untrusted,specification=virtio,grant_usage=0,access=r,target= a=b,c: ");
  assert.deepEqual({ ...d, text: "" }, {
    place, text: "", target: " a=b,c: ", format: "qed", vdev: "d1p2", device: 51730, access: "r", devtype: "disk", backendtype: "qdisk", backend: "storage", script: "block-x",
    directIoSafe: true, discard: false, trusted: false, specification: "virtio", grantUsage: false, colo: null, warnings: [],
  });
  assert.deepEqual(read("/x,,xvda,colo,colo-host=h,colo-port=9000,colo-export=e,active-disk=/a,hidden-disk=/h").colo,
    { isEnabled: true, host: "h", port: 9000, export: "e", activeDisk: "/a", hiddenDisk: "/h" });
});

test("several strings describe one disk, as block-attach has them", () => {
  assert.deepEqual(meaning("/x", "raw", "xvdb", "r"), meaning("/x,raw,xvdb,r"));
  assert.deepEqual(meaning("vdev=xvdb", "target=/x,y", "format=raw"), meaning("vdev=xvdb,target=/x,y"));
});

test("xend's prefixes mean what they meant, and each is warned about", () => {
  const d = read("tap:aio:qcow2:/x,ioemu:hda,w");
  assert.deepEqual([d.target, d.format, d.vdev, d.script], ["/x", "qcow2", "hda", null]);
  assert.deepEqual(d.warnings.map((w) => /"(\w+:)" is deprecated; (.*)$/.exec(w)?.slice(1)),
    [["tap:", "leave it out"], ["aio:", "leave it out"], ["qcow2:", 'write "format=qcow2"'], ["ioemu:", "leave it out"]]);
  assert.equal(read("iscsi:iqn.2001-04.com.example,xvda,w").script, "block-iscsi");
  assert.equal(read("drbd:res,xvda,w").script, "block-drbd");
  assert.match(read(",hdc:cdrom,r").warnings[0]!, /^f:3:9: disk: "hdc:cdrom" is deprecated; write "hdc" and "devtype=cdrom"/);
});

test("an address is a target, as the first parameter and after target=", () => {
  for (const target of ["nbd://storage:10809/vm1", "nbd://[::1]/a=b", "nbd+unix:///vm1?socket=/run/nbd.sock", "iscsi://portal:3260/iqn.2026-11.org.example:vm1/0"]) {
    const plain = meaning(`vdev=xvda,target=${target}`);
    assert.equal(plain.target, target);
    assert.deepEqual(meaning(`${target},raw,xvda,w`), plain);
  }
  assert.equal(read("nbd:name,xvda,w").script, "block-nbd", "without slashes it is xend's prefix");
});

test("every fault names what is wrong", () => {
  const faults: [string, RegExp][] = [
    ["/x,foo,xvda", /^f:3:9: disk: Unknown value "foo" for format: write raw, qcow, .*, in "\/x,foo,xvda"$/],
    ["/x,qcwo2,xvda", /Unknown value "qcwo2" for format; did you mean "qcow2"\?/],
    ["/x,raw,xvda,x", /Unknown value "x" for access/],
    ["/x,raw,xvda,w,w", /"w" is one positional parameter too many/],
    ["/x,raw,xvda,format=qcow2", /format is given twice: "raw" and "qcow2"/],
    ["/x,,xvda,format=qcow2", /format is given twice: "raw" and "qcow2"/],
    ["/x,raw,xvda,vdev=xvdb", /vdev is given twice: "xvda" and "xvdb"/],
    ["/x,raw,xvda,target=/y", /target is given twice/],
    ["/x,raw", /No vdev is given/],
    ["", /No vdev is given/],
    [",raw,xvda", /No target is given for xvda/],
    ["/x,empty,hdc,cdrom", /The format of hdc is "empty", and yet it has the target "\/x"/],
    [",hdc:disk,r", /hdc is empty and not a CD drive/],
    [",hdc:floppy,r", /Unknown value "floppy" for the device type/],
    ["/x,raw,xvd1", /"xvd1" is no virtual device/],
    ["/x,raw,hde", /"hde" is no virtual device/],
    ["/x,raw,xvda,devtype=dvd", /Unknown value "dvd" for devtype/],
    ["/x,raw,xvda,fromat=raw", /Unknown parameter "fromat"; did you mean "format"\?/],
    ["/x,raw,xvda,cdrom=1", /"cdrom" takes no value/],
    ["/x=y,raw,xvda", /"\/x=y" is neither KEY=VALUE nor/],
    ["foo:/x,xvda,w", /Unknown prefix "foo:"/],
    ["http://x/y,raw,xvda", /Unknown prefix "http:"/],
    ["/x,raw,xvda,colo-port=0", /Unknown value "0" for colo-port/],
    ["/x\n/y,raw,xvda", /target has a line end or control character/],
    ["/x\0,raw,xvda", /target has a line end or control character/],
  ];
  for (const [text, message] of faults) assert.match(fault(() => read(text)), message, text);
});

test("a list is read whole, and two disks at one virtual device are refused", () => {
  assert.deepEqual(disksOf("disk = [ '/dev/vg/guest-volume,,hda', '/root/image.iso,,hdc,cdrom' ]").map((d) => [d.vdev, d.device, d.access]), [["hda", 768, "w"], ["hdc", 5632, "r"]]);
  assert.equal(fault(() => disksOf("disk = [ '/a,,xvda',\n '/b,,d0p0' ]")), 'f:2:2: disk: d0p0 is taken already, by "/a,,xvda" at f:1:10 as xvda');
  assert.match(fault(() => disksOf("disk = '/a,,xvda'")), /^f:1:8: disk: Expected a list/);
  assert.match(fault(() => disksOf("disk = [ 1 ]")), /^f:1:10: disk: Expected a string, found a number/);
});

test("virtual devices are numbered as xen-vbd-interface(7) says", () => {
  for (const [vdev, number] of [["d0", 202 << 8], ["d0p0", 202 << 8], ["xvda", 202 << 8], ["d1p2", (202 << 8) | (1 << 4) | 2], ["xvdb2", (202 << 8) | (1 << 4) | 2], ["xvdp15", (202 << 8) | 255],
    ["d536p37", (1 << 28) | (536 << 8) | 37], ["xvdtq37", (1 << 28) | (536 << 8) | 37], ["xvdq", (1 << 28) | (16 << 8)], ["xvda16", (1 << 28) | 16], ["sdb3", (8 << 8) | (1 << 4) | 3],
    ["hdc2", (22 << 8) | 2], ["hdb63", (3 << 8) | (1 << 6) | 63], ["51712", 51712], ["0xca00", 51712], ["0145000", 51712], ["d1048575p255", (1 << 28) | (1048575 << 8) | 255]] as const) {
    assert.equal(vdevNumber(vdev), number, vdev);
  }
  for (const none of ["", "xvd", "xvd1", "xvda0", "xvda01", "xvda256", "XVDA", "hde", "hda64", "sdq", "sda16", "vda", "d1048576", "d0p256", "d", "dp1", "d0p", "xvda ", "-1", "2147483648", "xvdaaaaaaaa", "d9999999999999"]) {
    assert.equal(vdevNumber(none), null, none);
  }
  assert.equal(vdevNumber(vdevName(0)), 0);
  assert.deepEqual([51712, 51730, 5634, 768, 2067, (1 << 28) | (536 << 8) | 37].map(vdevName), ["xvda", "xvdb2", "hdc2", "hda", "sdb3", "xvdtq37"]);
  assert.deepEqual(vdevOf(5634), { type: "hd", disk: 2, partition: 2 });
  assert.deepEqual([1 << 28, (3 << 8) | 128, 9 << 8, 2 ** 29, -1, 0.5].map(vdevOf), [null, null, null, null, null, null]);
});

test("every number has a name that leads back to it", () => {
  const numbers = fc.oneof(fc.nat(0xffff), fc.integer({ min: 1 << 28, max: (1 << 29) - 1 }), fc.nat());
  fc.assert(fc.property(numbers, (n) => { assert.equal(vdevNumber(vdevName(n)), n); }), { numRuns: 2000, seed: 20261126 });
});

test("any text is read or refused at its place, never otherwise", () => {
  const bits = fc.constantFrom("/x", ",", ",", "=", "raw", "xvda", "hdc:cdrom", "target=", "format=", "phy:", "nbd://", " ", "\n", "__proto__=", "constructor", "é", "\0", "w", ":");
  fc.assert(fc.property(fc.oneof(fc.string(), fc.array(bits, { maxLength: 12 }).map((x) => x.join(""))), (text) => {
    assert.match(fault(() => read(text)), /^no fault$|^f:3:9: disk: /);
  }), { numRuns: 3000, seed: 20261126 });
});
