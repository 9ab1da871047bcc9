/** The Windows configuration of a talk on Xen in 2007, as its slide prints it: a parameter stands outside its string, and two disks are hdc. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { parseXlCfg, type XlValue } from "./xlcfg.ts";
import { parseDisks } from "./xldisk.ts";
import { nearest, XL_KEYS } from "./xlkeys.ts";
import { parseVifs } from "./xlvif.ts";

const PRINTED = `kernel = "/usr/lib/xen/boot/hvmloader"  
builder='hvm'  
vcpu=1  
memory = 512  
name = "winxp"  
vif = [ 'type=ioemu, bridge=xenbr0', mac='a:b:c:d:e:f' ]  
disk = [ 'file:/export/winxp/hdc.raw,ioemu:hdc,w', 'phy:/dev/hda,hdc:cdrom,r' ]  
  
device_model = '/usr/lib/xen/bin/qemu-dm'  
boot="c"  
sdl=1  
vnc=0  
nographic=0
`;
const WITH_MAC_INSIDE = PRINTED.replace("bridge=xenbr0', mac='a", "bridge=xenbr0, mac=a");
const CORRECTED = WITH_MAC_INSIDE.replace("ioemu:hdc", "ioemu:hda").replace("vcpu=", "vcpus=");

const value = (text: string, key: string): XlValue => parseXlCfg(text, "winxp.cfg").get(key)!.value;
const fault = (of: () => unknown): string => {
  try { of(); } catch (e) { assert.ok(e instanceof UserError, String(e)); return e.message; }
  return "no fault";
};

test("as printed, the parameter outside its string is found", () => {
  assert.equal(fault(() => parseXlCfg(PRINTED, "winxp.cfg")), 'winxp.cfg:6:38: vif: Words stand in quotes: "mac"');
});

test("with that put right, the second hdc is found", () => {
  assert.equal(fault(() => parseDisks(value(WITH_MAC_INSIDE, "disk"))),
    'winxp.cfg:7:52: disk: hdc is taken already, by "file:/export/winxp/hdc.raw,ioemu:hdc,w" at winxp.cfg:7:10');
});

test("the misspelt vcpu is found", () => {
  assert.equal(XL_KEYS.get("vcpu"), undefined);
  assert.equal(nearest("vcpu", XL_KEYS.keys()), "vcpus");
});

test("corrected, it is read, with a warning for each of xend's prefixes", () => {
  const settings = parseXlCfg(CORRECTED, "winxp.cfg"), [vif] = parseVifs(value(CORRECTED, "vif")), disks = parseDisks(value(CORRECTED, "disk"));
  assert.ok([...settings.keys()].every((key) => XL_KEYS.has(key)), "no key is unknown");
  assert.deepEqual([vif!.type, vif!.bridge, vif!.mac, vif!.isMacGenerated], ["ioemu", "xenbr0", "0a:0b:0c:0d:0e:0f", false]);
  assert.deepEqual(disks.map((d) => [d.target, d.format, d.vdev, d.device, d.access, d.devtype]),
    [["/export/winxp/hdc.raw", "raw", "hda", 768, "w", "disk"], ["/dev/hda", "raw", "hdc", 5632, "r", "cdrom"]]);
  assert.deepEqual(disks.flatMap((d) => d.warnings), [
    'winxp.cfg:7:10: disk: The prefix "file:" is deprecated; leave it out', 'winxp.cfg:7:10: disk: The prefix "ioemu:" is deprecated; leave it out',
    'winxp.cfg:7:52: disk: The prefix "phy:" is deprecated; leave it out', 'winxp.cfg:7:52: disk: "hdc:cdrom" is deprecated; write "hdc" and "devtype=cdrom"']);
});
