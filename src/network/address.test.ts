import assert from "node:assert/strict";
import { isIPv6 } from "node:net";
import { test } from "node:test";
import { isGroup, macAt, macText, parseIpv4, parseIpv6, parseMac } from "./address.ts";

test("a MAC is read, written and found in a frame", () => {
  assert.equal(parseMac("00:16:3E:01:02:ff"), 0x00163e0102ff);
  assert.equal(parseMac("fe-ff-ff-ff-ff-ff"), 0xfeffffffffff);
  for (const bad of ["", "00:16:3e:01:02", "00:16:3e:01:02:03:04", "00:16:3e:01-02:03", "0:16:3e:01:02:03", "00163e010203", "00:16:3e:01:02:0g"]) assert.equal(parseMac(bad), null, bad);
  assert.equal(macText(0x00163e0102ff), "00:16:3e:01:02:ff");
  assert.equal(macAt(Uint8Array.of(9, 0xfe, 0xff, 0xff, 0x80, 0, 1), 1), 0xfeffff800001);
  assert.deepEqual(["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", "fe:ff:ff:ff:ff:ff", "00:16:3e:00:00:01"].map((m) => isGroup(parseMac(m)!)), [true, true, false, false]);
});
test("IPv4 addresses are four numbers below 256", () => {
  assert.equal(parseIpv4("10.0.2.15"), 0x0a00020f);
  assert.equal(parseIpv4("255.255.255.255"), 0xffffffff);
  for (const bad of ["1.2.3", "1.2.3.256", "1.2.3.4.5", "1.2.3.04", "00.1.2.3", "1.2.3.x", " 1.2.3.4"]) assert.equal(parseIpv4(bad), null, bad);
});
test("IPv6 addresses are read as Node reads them", () => {
  const texts = ["::", "::1", "1::", "fe80::216:3eff:fe01:203", "2001:db8:0:0:1:0:0:1", "1:2:3:4:5:6:7:8", "::ffff:10.0.2.15", "1:2:3:4:5:6:10.0.2.15", "1:2:3:4:5:6:7::",
    "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", ":::", "1::2::3", "12345::", "g::", "::1.2.3.256", "::ffff:010.0.2.15", "1:2:3:4:5:6:7:1.2.3.4", "", ":", "1:", ":1", "1:2:3:4:5:6:7:8::"];
  for (const text of texts) assert.equal(parseIpv6(text) !== null, isIPv6(text), text);
  for (const text of texts.filter(isIPv6)) {
    const groups = new URL(`http://[${text}]/`).hostname.slice(1, -1);
    assert.deepEqual(parseIpv6(groups), parseIpv6(text), text);
  }
  assert.deepEqual([...parseIpv6("fe80::216:3eff:fe01:203")!], [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2, 0x16, 0x3e, 0xff, 0xfe, 1, 2, 3]);
});
