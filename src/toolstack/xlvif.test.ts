import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../base/errors.ts";
import { parseXlCfg } from "./xlcfg.ts";
import { parseRate, parseVifSpec, parseVifs, randomMac, type VifSpec } from "./xlvif.ts";

const place = { file: "f", line: 3, column: 9 };
const read = (text: string): VifSpec => parseVifSpec(text, place);
const vifsOf = (cfg: string): VifSpec[] => parseVifs(parseXlCfg(cfg, "f").get("vif")!.value);
const fault = (of: () => unknown): string => {
  try { of(); } catch (e) { assert.ok(e instanceof UserError, String(e)); return e.message; }
  return "no fault";
};

test("the examples of xl-network-configuration(5) are read", () => {
  const [a, b, c] = vifsOf("vif = [ 'mac=00:16:3E:74:3d:76,model=rtl8139,bridge=xenbr0', 'mac=00:16:3E:74:34:32', '' ]");
  assert.deepEqual([a!.mac, a!.model, a!.bridge, a!.devid], ["00:16:3e:74:3d:76", "rtl8139", "xenbr0", 0]);
  assert.deepEqual([b!.mac, b!.isMacGenerated, b!.devid], ["00:16:3e:74:34:32", false, 1]);
  assert.match(c!.mac, /^00:16:3e:[0-7][0-9a-f]:[0-9a-f]{2}:[0-9a-f]{2}$/);
  assert.deepEqual({ ...c, mac: "" }, {
    place: { file: "f", line: 1, column: 87 }, text: "", devid: 2, mac: "", isMacGenerated: true, bridge: null, gatewaydev: null, type: null, model: null, vifname: null, script: null, ip: [],
    backend: null, rate: null, mtu: null, vlan: null, vlans: null, trusted: true, forwards: [], colo: {}, warnings: [],
  });
});

test("every key is read, those that the manual leaves out too", () => {
  const v = read("mac=0:16:3e:1:2:a, type=ioemu,gatewaydev=eth0,ip=10.0.0.2 fe80::1/64,script=/s,backend=net,vifname=web,rate=10Mb/s,devid=7,mtu=9000,vlan=10p/20,untrusted,"
    + "forwarddev=eth1,colo_sock_mirror_id=m,forward=tcp:127.0.0.1:2222-22,forward=udp:[::1]:53-53,forward=tcp:[::1]:80-[fd00::5]:80");
  assert.deepEqual({ ...v, text: "" }, {
    place, text: "", devid: 7, mac: "00:16:3e:01:02:0a", isMacGenerated: false, bridge: null, gatewaydev: "eth0", type: "ioemu", model: null, vifname: "web", script: "/s",
    ip: ["10.0.0.2", "fe80::1/64"], backend: "net", rate: { bytesPerInterval: 62500, intervalUs: 50000 }, mtu: 9000, vlan: "10p/20", vlans: { trunk: [20], native: 10 }, trusted: false,
    forwards: ["tcp:127.0.0.1:2222-22", "udp:[::1]:53-53", "tcp:[::1]:80-[fd00::5]:80"], colo: { forwarddev: "eth1", colo_sock_mirror_id: "m" }, warnings: [],
  });
});

test("blanks before a parameter are skipped, those after it are the value's, and empty parameters are none", () => {
  assert.equal(read(" ,  bridge=br 0 ,,").bridge, "br 0 ");
  assert.equal(read("bridge=").bridge, null);
});

test("what is deprecated, ignored or given twice is warned about", () => {
  const v = read("netdev=eth0,accel=1,bridge=a,bridge=b");
  assert.deepEqual([v.gatewaydev, v.bridge], ["eth0", "b"]);
  assert.deepEqual(v.warnings, ['f:3:9: vif: "netdev" is deprecated; write "gatewaydev"', 'f:3:9: vif: "accel" is not supported and ignored', 'f:3:9: vif: bridge is given twice; "b" holds, not "a"']);
});

test("rates are counted as the manual's examples are", () => {
  assert.deepEqual(parseRate("10Mb/s"), { bytesPerInterval: 62500, intervalUs: 50000 });
  assert.deepEqual(parseRate("250KB/s"), { bytesPerInterval: 12500, intervalUs: 50000 });
  assert.deepEqual(parseRate("1MB/s@20ms"), { bytesPerInterval: 20000, intervalUs: 20000 });
  assert.deepEqual(parseRate("4294967295GB/s@1u"), { bytesPerInterval: 4294967295000, intervalUs: 1 });
  for (const [text, what] of [["", "is no rate"], ["1MB", "is no rate"], ["1TB/s", "is no rate"], ["1kb/s", "is no rate"], ["0b/s", "out of range"], ["08b/s", "out of range"], ["4294967296b/s", "out of range"],
    ["1b/s@", "is no interval"], ["1b/s@1h", "is no interval"], ["1b/s@0ms", "out of range"], ["1b/s@4295s", "is longer"], ["4294967295GB/s@4294s", "fit into 64 bits"]] as const) {
    assert.ok(String(parseRate(text)).includes(what), `${text}: ${JSON.stringify(parseRate(text))}`);
  }
});

test("every fault names what is wrong", () => {
  const faults: [string, RegExp][] = [
    ["mac=00:16:3e:01:02", /^f:3:9: vif: mac: "00:16:3e:01:02" is no MAC address: .*, in "mac=00:16:3e:01:02"$/],
    ["mac=00:16:3e:01:02:100", /is no MAC address/],
    ["mac=01:16:3e:01:02:03", /is a group address/],
    ["mac=ff:ff:ff:ff:ff:ff", /is a group address/],
    ["brigde=x", /Unknown parameter "brigde"; did you mean "bridge"\?/],
    ["bridge", /"bridge" needs a value/],
    ["trusted=1", /"trusted" takes no value/],
    ["trusted ", /Unknown parameter "trusted "; did you mean "trusted"/],
    ["type=pv", /type: "pv" is neither vif nor ioemu/],
    ["ip=10.0.0.256", /ip: "10.0.0.256" is no IP address/],
    ["ip=10.0.0.1/33", /is no IP address/],
    ["ip=fe80:::1", /is no IP address/],
    ["mtu=67", /mtu: "67" is no number from 68 to 65535/],
    ["devid=-1", /devid: "-1" is no number/],
    ["rate=1", /rate: "1" is no rate/],
    ["vlan=10/20", /vlan: "10\/20" marks 0 VLANs as the PVID/],
    ["vlan=10p/4095", /vlan: "4095" leaves 1 to 4094/],
    ["vlan=10p/20-15", /vlan: "20-15" leaves/],
    ["vlan=10-20p", /may be the PVID/],
    ["vlan=x", /vlan: "x" is none of/],
    ["forward=tcp:127.0.0.1:0-22", /forward: ".*" is not tcp:HOSTADDR:HOSTPORT-GUESTPORT/],
    ["forward=127.0.0.1:1-22", /forward: ".*" is not tcp/],
    ["forward=tcp:[::1]:1-fd00::5:22", /forward: Forward ".*": an IPv6 address stands in brackets, "\[fd00::5\]"/],
    ["forward=tcp:[::1]:1-[fd00::5::]:22", /forward: Forward ".*": "fd00::5::" is not an IPv6 address/],
    ["forward=tcp:::1:1-[fd00::5]:22", /forward: Forward ".*": is not of the form/],
    ["forward=tcp:127.0.0.1:1-web:22", /forward: ".*" is neither tcp:HOSTADDR:HOSTPORT-GUESTPORT nor tcp:HOSTADDR:HOSTPORT-GUESTADDR:GUESTPORT/],
    ["bridge=a\0b", /control character/],
  ];
  for (const [text, message] of faults) assert.match(fault(() => read(text)), message, text);
  assert.equal(fault(() => vifsOf("vif = ['devid=1',\n '']")), 'f:2:2: vif: devid 1 is taken already, by "devid=1" at f:1:8');
  assert.match(fault(() => vifsOf("vif = ['mac=2:0:0:0:0:1',\n 'mac=02:0:0:0:0:1']")), /^f:2:2: vif: mac 02:00:00:00:00:01 is taken already/);
  assert.match(fault(() => vifsOf("vif = 'bridge=a'")), /^f:1:7: vif: Expected a list/);
});

test("an address of zeros is none, and made-up ones differ", () => {
  assert.equal(read("mac=0:0:0:0:0:0").isMacGenerated, true);
  assert.ok(new Set(Array.from({ length: 20 }, randomMac)).size > 15);
});

test("any text is read or refused at its place, never otherwise", () => {
  const bits = fc.constantFrom("mac=", "ip=", "rate=", "vlan=", "forward=", "1", "10", ":", "-", "+", "x", "/", "B/s", "@", ",", " ", "trusted", "__proto__=", "constructor=", "é", "\0", "p");
  fc.assert(fc.property(fc.oneof(fc.string(), fc.array(bits, { maxLength: 12 }).map((x) => x.join(""))), (text) => {
    assert.match(fault(() => read(text)), /^no fault$|^f:3:9: vif: /);
  }), { numRuns: 3000, seed: 20261126 });
});
