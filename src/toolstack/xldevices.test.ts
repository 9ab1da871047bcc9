import assert from "node:assert/strict";
import { test } from "node:test";
import { parseXlCfg } from "./xlcfg.ts";
import { xlDevices } from "./xldevices.ts";

const load = (text: string) => xlDevices(parseXlCfg(text, "f"));

test("disks and interfaces come as the library takes them", () => {
  const { disks, vifs, warnings } = load(`disk = ["/a.img,raw,xvda,rw", "format=qcow2, vdev=xvdb, access=ro, target=b.qcow2", ",empty,hdc,r,devtype=cdrom"]
vif = ["mac=00:16:3e:01:02:03,bridge=lan,rate=1MB/s@20ms,ip=10.0.0.2/24 10.0.0.3,mtu=1400,forward=tcp:127.0.0.1:2222-22", "devid=5,vifname=x,vlan=10p"]`);
  assert.deepEqual(disks.map((d) => [d.target, d.format, d.vdev, d.access]), [["/a.img", "raw", "xvda", "w"], ["b.qcow2", "qcow2", "xvdb", "r"]]);
  const [first, second] = vifs;
  assert.deepEqual(first, { devid: 0, mac: "00:16:3e:01:02:03", bridge: "lan", rate: { bytesPerInterval: 20_000, intervalUs: 20_000 }, ips: ["10.0.0.2", "10.0.0.3"], mtu: 1400, forwards: ["tcp:127.0.0.1:2222-22"] });
  assert.match(second!.mac, /^00:16:3e:/);
  assert.deepEqual([second!.devid, second!.vifname, second!.vlan], [5, "x", { access: 10 }]);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /hdc: an empty drive/);
});

test("VLANs are numbers, ranges and series; one may go untagged", () => {
  const vlan = (text: string) => load(`vif=["vlan=${text}"]`).vifs[0]!.vlan;
  assert.deepEqual(vlan("10"), { access: 10 });
  assert.deepEqual(vlan("10p/20-22/100+10x3"), { trunk: [20, 21, 22, 100, 110, 120], native: 10 });
  assert.throws(() => vlan("10p/20u"), /"20u": untagged frames of another VLAN than the PVID are not built/);
});

test("what is understood and not built is refused at its place or warned of", () => {
  for (const [text, fault] of [
    ['disk=["a,raw,xvda,w,specification=virtio"]', /f:1:7: xvda: specification=virtio is not built/], ['disk=["a,raw,xvda,w,backend=store"]', /driver domains/],
    ['vif=["backend=net"]', /driver domains/], ['channel=["connection=socket,path=/x,backend=net"]', /f:1:10: channel: backend=net: channels of driver domains/], ['vif=["rate=1b/s@1us"]', /Less than a byte/],
  ] as const) assert.throws(() => load(text), fault, text);
  assert.match(load('disk=["a,raw,xvda,w,script=block-x"]\nvif=["script=vif-x,gatewaydev=eth0"]').warnings.join("\n"), /block-x is not run[^]*eth0 is ignored[^]*vif-x is not run/);
});
