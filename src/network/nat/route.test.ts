import assert from "node:assert/strict";
import test from "node:test";
import { type Address, formatAddress, formatIpv6, macOf, madeFrom, parseAddress, parseSubnet, parseSubnet6 } from "./address.ts";
import { parseForward } from "./forward.ts";
import { addressOfReverse } from "./names.ts";
import type { Own } from "./own.ts";
import { ALLOW_ALL, parsePolicy } from "./policy.ts";
import { makeRoute, type RouteOptions } from "./route.ts";

const at = (text: string): Address => parseAddress(text)!, v6 = (text: string): bigint => at(text) as bigint;
const own: Own = {
  network: parseSubnet("10.0.2.0/24"), gateway: at("10.0.2.1") as number, host: at("10.0.2.2") as number,
  v6: { network: parseSubnet6("fd00:2::/64"), gateway: v6("fd00:2::1"), host: v6("fd00:2::2"), linkLocal: v6("fe80::1") },
};
const route = (options: Partial<RouteOptions> = {}) => {
  const made = makeRoute({ own, hostAccess: false, policy: ALLOW_ALL, hasWorld6: true, ...options });
  return (text: string, port = 80): string => {
    const target = made("tcp", at(text), port);
    return typeof target === "string" ? target : formatAddress(target);
  };
};

test("IPv6 addresses are read as RFC 4291 has them and written as RFC 5952 wants", () => {
  for (const [text, written] of [["::", "::"], ["::1", "::1"], ["2001:DB8::0:1", "2001:db8::1"], ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"], ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["1:0:0:2:0:0:0:3", "1:0:0:2::3"], ["fe80:0:0:0:0:0:0:0", "fe80::"], ["::ffff:1.2.3.4", "::ffff:102:304"], ["ff:ff::", "ff:ff::"]] as const) {
    assert.equal(formatIpv6(v6(text)), written);
    assert.equal(v6(written), v6(text));
  }
  for (const text of ["", ":", "1::2::3", "12345::", "fe80::1%eth0", "[::1]", "1:2:3:4:5:6:7", "::1.2.3"]) assert.equal(parseAddress(text), null, text);
  assert.equal(formatAddress(madeFrom(0x02163e000001)), "fe80::16:3eff:fe00:1");
  assert.equal(formatAddress(madeFrom(0x00163eaabbcc, v6("fd00:2::"))), "fd00:2::216:3eff:feaa:bbcc");
  assert.deepEqual([macOf(v6("fd00:2::216:3eff:feaa:bbcc")), macOf(v6("fd00:2::216:3eff:aaaa:bbcc"))], [0x00163eaabbcc, null]);
  assert.throws(() => parseSubnet6("fd00::1/64"), { name: "UserError", message: 'Subnet "fd00::1/64": bits are set behind the prefix; the network is fd00::/64' });
  assert.throws(() => parseSubnet6("fd00::/129"), /a number from 0 to 128/);
  assert.throws(() => parseSubnet6("10.0.0.0/8"), /"10.0.0.0" is not an IPv6 address/);
  assert.equal(addressOfReverse("f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa"), v6("fd00:2::f"));
  for (const name of ["f.ip6.arpa", "ip6.arpa", "x.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa", "2.0.10.in-addr.arpa", "fd00:2::1.in-addr.arpa"]) assert.equal(addressOfReverse(name), null);
});

test("the world is reached, and the host by its alias only; no address that means the host, its links or groups goes out", () => {
  const to = route(), open = route({ hostAccess: true }), inside = route({ hasWorld6: false, hostAccess: true });
  for (const text of ["2001:db8::1", "2606:4700::1111", "3fff::1", "fd12::1", "fc00::1", "192.0.2.1", "64:ff9b::192.0.2.1"]) assert.equal(to(text), formatAddress(at(text)), text);
  const never = ["::", "::1", "::2", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:192.0.2.1", "::127.0.0.1", "::192.0.2.1", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::0.0.0.1", "64:ff9b::224.0.0.1",
    "64:ff9b::10.0.2.5", "64:ff9b:1::127.0.0.1", "2002:7f00:1::1", "2002:c000:201::1", "2001:0:7f00:1::1", "2001::1", "fe80::1:2", "febf::1", "fec0::1", "ff02::1", "ff0e::1", "100::1", "4000::1", "5f00::1", "e000::1",
    "2001:db8::5efe:127.0.0.1", "2001:db8::200:5efe:127.0.0.1", "fd12::5efe:10.0.2.5", "fd00:2::77", "127.0.0.1", "0.0.0.1", "224.0.0.1", "10.0.2.77"];
  for (const text of never) for (const r of [to, open, inside]) assert.equal(r(text), "unreachable", text);
  for (const text of ["fd00:2::1", "fe80::1", "10.0.2.1"]) assert.equal(open(text), "refused", text);
  assert.deepEqual([to("fd00:2::2"), to("10.0.2.2"), open("fd00:2::2"), open("10.0.2.2"), inside("fd00:2::2")], ["refused", "refused", "::1", "127.0.0.1", "::1"]);
  assert.deepEqual([inside("2001:db8::1"), inside("192.0.2.1")], ["unreachable", "192.0.2.1"]);
});

test("rules name networks of both families; any is both, and an IPv4 address inside an IPv6 one is judged as itself too", () => {
  const to = route({ policy: parsePolicy(["allow tcp [2001:db8::/32]:443", "deny 2001:db8::/32", "deny [fd12::1]", "deny 192.0.2.0/24", "deny any:25"]), hostAccess: true });
  assert.deepEqual([to("2001:db8::1", 443), to("2001:db8::1"), to("2001:db9::1"), to("fd12::1"), to("fd12::2"), to("192.0.2.1"), to("fd12::2", 25), to("198.51.100.1", 25)],
    ["2001:db8::1", "prohibited", "2001:db9::1", "prohibited", "fd12::2", "prohibited", "prohibited", "prohibited"]);
  assert.deepEqual([to("64:ff9b::192.0.2.1"), to("64:ff9b::198.51.100.1"), to("2001:db9::5efe:192.0.2.1")], ["prohibited", "64:ff9b::c633:6401", "prohibited"]);
  const list = route({ policy: parsePolicy(["allow 2001:db8::/32", "deny any"]) });
  assert.deepEqual([list("2001:db8::1"), list("2001:db9::1"), list("192.0.2.1"), list("64:ff9b::192.0.2.1")], ["2001:db8::1", "prohibited", "prohibited", "prohibited"]);
});

test("rules that deny IPv4 networks and know of no IPv6 ones let no IPv6 out", () => {
  const of = (...rules: string[]) => {
    const to = route({ policy: parsePolicy(rules), hostAccess: true });
    return [to("2001:db8::1", 443) !== "prohibited", to("fd00:2::2", 443) !== "prohibited", parsePolicy(rules).deniesIpv6];
  };
  assert.deepEqual(of(), [true, true, false]);
  assert.deepEqual(of("deny udp any:53"), [true, true, false]);
  assert.deepEqual(of("allow tcp any:443", "deny any"), [true, true, false]);
  assert.deepEqual(of("deny 10.0.0.0/8", "deny 192.168.0.0/16"), [false, false, true]);
  assert.deepEqual(of("deny tcp 169.254.169.254:80", "allow any"), [false, false, true], "any was written when there was no other");
  assert.deepEqual(of("allow 192.0.2.0/24", "deny any"), [false, false, true]);
  assert.deepEqual(of("deny 10.0.0.0/8", "deny fc00::/7"), [true, false, false], "who names an IPv6 network knows of them");
  assert.deepEqual(of("deny 10.0.0.0/8", "allow ::/0"), [true, true, false]);
  assert.deepEqual(of("deny ::/0"), [false, false, true]);
});

test("rules and forwards say what is wrong with IPv6 addresses in them", () => {
  for (const [rule, why] of [["deny fd00::1", /stands in brackets, "\[2001:db8::1\]"/], ["deny fd00::1:80", /stands in brackets/], ["deny [fd00::1/64]", /bits are set behind the prefix; the network is fd00::\/64/],
    ["deny [10.0.0.1]", /"10.0.0.1" is not an IPv6 address/], ["deny [any]:80", /"any" is not an IPv6 address/], ["deny [fd00::]:x", /"x" is neither a port nor a range/], ["deny fd00::/200", /0 to 128/]] as const) {
    assert.throws(() => parsePolicy([rule]), why, rule);
  }
  const short = (text: string) => {
    const f = parseForward(text);
    return [f.listenAddress, f.listenPort, f.target, f.targetPort];
  };
  assert.deepEqual(short("tcp:[::1]:8080-[fd00:2::15]:80"), ["::1", 8080, { address: v6("fd00:2::15") }, 80]);
  assert.deepEqual(short("udp:0-[fd00:2::15]:80"), ["127.0.0.1", 0, { address: v6("fd00:2::15") }, 80]);
  assert.deepEqual(short("tcp:[::]:8080-10.0.2.15:80"), ["::", 8080, { address: at("10.0.2.15") }, 80]);
  for (const [text, why] of [["tcp:1-fd00::15:80", /an IPv6 address stands in brackets, "\[fd00::15\]"/], ["tcp:1-[fd00::zz]:80", /"fd00::zz" is not an IPv6 address/], ["tcp:1-[10.0.2.15]:80", /"10.0.2.15" is not an IPv6 address/],
    ["tcp:[fd00]:1-a:80", /"\[fd00\]" is not an address of the host's/], ["tcp:[127.0.0.1]:1-a:80", /is not an address of the host's/], ["tcp:::1:80-a:80", /form/], ["tcp:1-[fd00::15]", /form/]] as const) {
    assert.throws(() => parseForward(text), why, text);
  }
});
