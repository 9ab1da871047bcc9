import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { macAt } from "./address.ts";
import { arp, BROADCAST, bytesOf, be16, ethernet, ipv4, ipv6, macNr, seeded, tcp, udp } from "./fixture.ts";
import { SourceGuard } from "./guard.ts";
import { VlanMember } from "./vlan.ts";

const MAC = macNr(5), IP = "10.0.0.5", IP6 = "2001:db8::5", LOCAL = "fe80::216:3eff:fe00:5", ALL = "ff02::1", T = { arp: 0x0806, v4: 0x0800, v6: 0x86dd };
const guard = new SourceGuard("vif1.0", [MAC], [IP, IP6]), member = new VlanMember({ trunk: "all", native: 0 }, "vif1.0");
const verdict = (bytes: Uint8Array<ArrayBuffer>, g = guard) => g.check(bytes, macAt(bytes, 6), member.classify(bytes)!);
const from = (type: number, payload: Uint8Array, mac = MAC, tags: number[] = []) => ethernet(BROADCAST, mac, type, payload, tags);
const DATA = new Uint8Array(20).fill(7);
const macHex = (nr: number) => macNr(nr).replaceAll(":", "");
const bootp = (mac: string, xs = 236) => bytesOf("01010600", new Uint8Array(24), mac.replaceAll(":", ""), new Uint8Array(xs - 34));
const icmp = (type: number, rest: Uint8Array) => bytesOf(type, 0, 0, 0, rest);
const ns = (target: string, ...options: string[]) => icmp(135, bytesOf(0, 0, 0, 0, ipv6(target, target, 0, new Uint8Array()).subarray(8, 24), ...options));
const na = (target: string, ...options: string[]) => icmp(136, bytesOf(0x20, 0, 0, 0, ipv6(target, target, 0, new Uint8Array()).subarray(8, 24), ...options));
const fragment = (next: number, offset: number, more: boolean, payload: Uint8Array) => bytesOf(next, 0, be16((offset << 3) | (more ? 1 : 0)), "00000001", payload);

test("what a host says of itself goes", () => {
  const good: Record<string, Uint8Array<ArrayBuffer>> = {
    "ARP asks": from(T.arp, arp(1, MAC, IP, "10.0.0.1")), "ARP probes": from(T.arp, arp(1, MAC, "0.0.0.0", IP)), "says where it is": from(0x8035, arp(3, MAC, "0.0.0.0", "0.0.0.0")), "ARP behind a tag": from(T.arp, arp(2, MAC, IP, "10.0.0.1"), MAC, [7]),
    TCP: from(T.v4, ipv4(IP, "10.0.0.1", 6, tcp(1, 2, 3, DATA))), "a later fragment": from(T.v4, ipv4(IP, "10.0.0.1", 17, DATA, 0x2005)),
    "DHCP without an address": from(T.v4, ipv4("0.0.0.0", "255.255.255.255", 17, udp(68, 67, bootp(MAC)))), "DHCP renews": from(T.v4, ipv4(IP, "10.0.0.1", 17, udp(68, 67, bootp(MAC)))),
    "IPv6 TCP": from(T.v6, ipv6(IP6, "2001:db8::1", 6, tcp(1, 2, 3, DATA))), "link-local UDP": from(T.v6, ipv6(LOCAL, ALL, 17, udp(546, 547, DATA))),
    "IPv6 behind options": from(T.v6, ipv6(IP6, ALL, 0, bytesOf("3c00000000000000", "0600000000000000", tcp(1, 2, 3, DATA)))),
    "duplicate address detection": from(T.v6, ipv6("::", "ff02::1:ff00:5", 58, ns(LOCAL))), "MLD from nobody": from(T.v6, ipv6("::", "ff02::16", 58, icmp(143, new Uint8Array(24)))),
    "MLD behind hop-by-hop options": from(T.v6, ipv6(LOCAL, "ff02::16", 0, bytesOf("3a00050200000100", icmp(143, new Uint8Array(24))))),
    "solicits a neighbour": from(T.v6, ipv6(IP6, ALL, 58, ns("2001:db8::1", "0101", macHex(5)))), "advertises itself": from(T.v6, ipv6(IP6, ALL, 58, na(IP6, "0201", macHex(5)))),
    "solicits routers": from(T.v6, ipv6("::", "ff02::2", 58, icmp(133, new Uint8Array(4)))), "IPv6 fragment": from(T.v6, ipv6(IP6, ALL, 44, fragment(17, 0, true, udp(1, 2, DATA)))),
    "a later IPv6 fragment": from(T.v6, ipv6(IP6, ALL, 44, fragment(17, 3, false, DATA))), ping6: from(T.v6, ipv6(IP6, ALL, 58, icmp(128, DATA))),
  };
  for (const [what, bytes] of Object.entries(good)) assert.equal(verdict(bytes), null, what);
});
test("what it says of others does not", () => {
  const bad: Record<string, Uint8Array<ArrayBuffer>> = {
    "ARP for another's address": from(T.arp, arp(1, MAC, "10.0.0.1", IP)), "ARP for another's MAC": from(T.arp, arp(2, macNr(6), IP, "10.0.0.1")), "short ARP": from(T.arp, arp(1, MAC, IP, IP).slice(0, 27)),
    "ARP of another hardware": from(T.arp, bytesOf("0006", arp(1, MAC, IP, IP).slice(2))), "another's IPv4": from(T.v4, ipv4("10.0.0.6", "10.0.0.1", 6, tcp(1, 2, 3, DATA))),
    "no IPv4": from(T.v4, ipv4("0.0.0.0", "10.0.0.1", 17, udp(5, 6, DATA))), "a fragment from no address": from(T.v4, ipv4("0.0.0.0", "10.0.0.1", 17, udp(68, 67, bootp(MAC)), 1)),
    "another's behind a tag": from(T.v4, ipv4("10.0.0.6", "10.0.0.1", 6, tcp(1, 2, 3, DATA)), MAC, [7]), "IPv4 that is version 5": from(T.v4, bytesOf(0x55, ipv4(IP, IP, 6, DATA).slice(1))),
    "IPv4 that is cut": from(T.v4, ipv4(IP, "10.0.0.1", 6, DATA).slice(0, 19)), "DHCP for another MAC": from(T.v4, ipv4("0.0.0.0", "255.255.255.255", 17, udp(68, 67, bootp(macNr(6))))),
    "DHCP answers": from(T.v4, ipv4(IP, "10.0.0.9", 17, udp(67, 68, bootp(MAC)))), "IPv4 without UDP header": from(T.v4, ipv4(IP, "10.0.0.1", 17, DATA.slice(0, 7))),
    "another's IPv6": from(T.v6, ipv6("2001:db8::6", ALL, 6, tcp(1, 2, 3, DATA))), "another's link-local": from(T.v6, ipv6("fe80::216:3eff:fe00:6", ALL, 6, tcp(1, 2, 3, DATA))),
    "no IPv6": from(T.v6, ipv6("::", ALL, 17, udp(1, 2, DATA))), "detects another's": from(T.v6, ipv6("::", ALL, 58, ns("2001:db8::6"))), "advertises another": from(T.v6, ipv6(IP6, ALL, 58, na("2001:db8::1"))),
    "advertises another's MAC": from(T.v6, ipv6(IP6, ALL, 58, na(IP6, "0201", macHex(6)))), "solicits with another's MAC": from(T.v6, ipv6(IP6, ALL, 58, ns("2001:db8::1", "0101", macHex(6)))),
    "hides the MAC behind an option": from(T.v6, ipv6(IP6, ALL, 58, na(IP6, "0e010000000000000201", macHex(6)))), "is a router": from(T.v6, ipv6(LOCAL, ALL, 58, icmp(134, new Uint8Array(12)))),
    redirects: from(T.v6, ipv6(LOCAL, ALL, 58, icmp(137, new Uint8Array(36)))), "is a router behind options": from(T.v6, ipv6(LOCAL, ALL, 60, bytesOf("3a00000000000000", icmp(134, new Uint8Array(12))))),
    "is a router in fragments": from(T.v6, ipv6(LOCAL, ALL, 44, fragment(58, 0, true, icmp(134, new Uint8Array(12))))), "has its header in a later fragment": from(T.v6, ipv6(LOCAL, ALL, 44, fragment(60, 0, true, bytesOf("3a02000000000000")))),
    "a later fragment of another's": from(T.v6, ipv6("2001:db8::6", ALL, 44, fragment(17, 3, false, DATA))), "is a DHCPv6 server": from(T.v6, ipv6(LOCAL, ALL, 17, udp(547, 546, DATA))),
    "headers without end": from(T.v6, ipv6(IP6, ALL, 60, bytesOf(...Array.from({ length: 20 }, () => "3c00000000000000"), tcp(1, 2, 3, DATA)))), "another protocol": from(0x88b5, DATA), "RARP": from(0x8035, arp(3, MAC, IP, IP)),
    "a length instead of a type": from(40, bytesOf("aaaa030000000800", ipv4("10.0.0.6", IP, 6, DATA))), "IPv4 behind two tags": from(T.v4, ipv4(IP, IP, 6, DATA), MAC, [7, 8]),
  };
  for (const [what, bytes] of Object.entries(bad)) assert.equal(verdict(bytes), "ip", what);
  assert.equal(verdict(from(T.v4, ipv4(IP, "10.0.0.1", 6, DATA), macNr(6))), "mac");
});
test("without a list of Ethernet addresses, what is said within must agree with the frame", () => {
  const free = new SourceGuard("p", undefined, [IP, IP6]);
  assert.equal(verdict(from(T.arp, arp(1, macNr(6), IP, "10.0.0.1"), macNr(6)), free), null);
  assert.equal(verdict(from(T.arp, arp(1, macNr(6), IP, "10.0.0.1"), macNr(7)), free), "ip");
});
test("with IPv4 addresses alone there is no IPv6, and with Ethernet addresses alone anything goes inside", () => {
  assert.equal(verdict(from(T.v6, ipv6(LOCAL, ALL, 17, udp(546, 547, DATA))), new SourceGuard("p", [MAC], [IP])), "ip");
  assert.equal(verdict(from(0x88b5, DATA), new SourceGuard("p", [MAC])), null);
  assert.equal(verdict(from(0x88b5, DATA, macNr(6)), new SourceGuard("p", [MAC])), "mac");
});
test("addresses that no guest has are refused", () => {
  for (const [macs, ips] of [[["01:00:5e:00:00:01"], []], [["00:00:00:00:00:00"], []], [["x"], []], [[MAC], ["0.0.0.0"]], [[MAC], ["::"]], [[MAC], ["10.0.0.0/8"]]] as const) {
    assert.throws(() => new SourceGuard("vif1.0", macs, ips), (e) => e instanceof UserError && e.message.startsWith("Port vif1.0:"));
  }
});
test("bytes without sense are judged without a fault", () => {
  const random = seeded(11);
  for (let i = 0; i < 20_000; i++) {
    const type = random.pick([T.arp, T.v4, T.v6]), payload = random.bytes(random.below(90));
    if (payload.length > 6 && type === T.v6) { payload[0] = 0x60; payload[6] = random.pick([0, 43, 44, 58, 60, 17]); }
    if (payload.length > 9 && type === T.v4) { payload[0] = 0x40 | random.below(16); payload[9] = 17; }
    verdict(from(type, payload));
  }
});
