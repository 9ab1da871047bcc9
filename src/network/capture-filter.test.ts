import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { parseFilter } from "./capture-filter.ts";
import { arp, be16, BROADCAST, bytesOf, ethernet, ipv4, ipv6, macNr, plain, seeded, tcp, udp } from "./fixture.ts";
import { interfaceBlock, packetBlock, sectionBlock } from "./pcapng.ts";

const DATA = new Uint8Array(30).fill(1), ICMP = bytesOf("0800", 0, 0, DATA), ICMP6 = bytesOf("8000", 0, 0, DATA);
const packets: [type: number, payload: Uint8Array<ArrayBuffer>][] = [
  [0x0806, arp(1, macNr(1), "10.0.0.1", "10.0.0.2")], [0x0806, arp(2, macNr(2), "10.0.0.2", "10.0.0.1")], [0x0800, ipv4("10.0.0.1", "10.0.0.2", 6, tcp(5000, 80, 1, DATA))],
  [0x0800, ipv4("10.0.0.2", "10.0.0.3", 17, udp(80, 5000, DATA))], [0x0800, ipv4("10.0.0.3", "10.0.0.1", 1, ICMP)], [0x0800, ipv4("10.0.0.1", "10.0.0.3", 17, DATA, 0x2004)],
  [0x86dd, ipv6("fe80::1", "fe80::2", 6, tcp(80, 6000, 1, DATA))], [0x86dd, ipv6("fe80::2", "fe80::1", 58, ICMP6)], [0x86dd, ipv6("fe80::1", "fe80::3", 0, bytesOf("3a00050200000100", ICMP6))],
  [0x88b5, DATA], [0x0800, bytesOf("45")],
];
const frames = packets.flatMap(([type, payload], i) => [[], [7], [7, 9]].map((tags) => ethernet(i % 3 ? macNr(i % 4) : BROADCAST, macNr(5 - (i % 4)), type, payload, tags)));

test("a filter wants what tshark's display filter of the same meaning wants", () => {
  const ours = ["arp", "ip", "ip6", "tcp", "udp", "icmp", "icmp6", "host 10.0.0.1", "src host 10.0.0.2", "dst host fe80::1", "port 80", "dst port 5000", "src port 80", `ether host ${macNr(2)}`,
    `ether src host ${macNr(3)}`, `ether dst host ${BROADCAST}`, "vlan", "vlan 9", "vlan 8"];
  const theirs = ["arp", "ip", "ipv6", "(ip.proto == 6 or ipv6.nxt == 6)", "(ip.proto == 17 or ipv6.nxt == 17)", "icmp", "icmpv6", "(ip.addr == 10.0.0.1 or arp.src.proto_ipv4 == 10.0.0.1 or arp.dst.proto_ipv4 == 10.0.0.1)",
    "(ip.src == 10.0.0.2 or arp.src.proto_ipv4 == 10.0.0.2)", "ipv6.dst == fe80::1", "(tcp.port == 80 or udp.port == 80)", "(tcp.dstport == 5000 or udp.dstport == 5000)", "(tcp.srcport == 80 or udp.srcport == 80)",
    `eth.addr == ${macNr(2)}`, `eth.src == ${macNr(3)}`, `eth.dst == ${BROADCAST}`, "vlan", "vlan.id == 9", "vlan.id == 8"];
  const random = seeded(4), words = ours.map((text, i) => [text, theirs[i]!] as const), pairs = [...words];
  for (let i = 0; i < 12; i++) {
    const [a, b, c] = [random.pick(words), random.pick(words), random.pick(words)];
    pairs.push([`${a[0]} and not (${b[0]} or ${c[0]})`, `(${a[1]}) and not ((${b[1]}) or (${c[1]}))`], [`${a[0]} or ${b[0]} and ${c[0]}`, `((${a[1]}) or (${b[1]})) and (${c[1]})`]);
  }
  const dir = mkdtempSync(join(tmpdir(), "domus-filter-")), path = join(dir, "all.pcapng");
  try {
    // A frame a second: tshark counts by second and filter, in one pass. It leaves the last second out.
    writeFileSync(path, Buffer.concat([sectionBlock("Domus"), interfaceBlock("x", 0),
      ...frames.concat(frames[0]!).map((bytes, i) => packetBlock({ interfaceNr: 0, timeNs: BigInt(i) * 1_000_000_000n, bytes, lengthBytes: bytes.length }))]));
    const said = execFileSync("tshark", ["-n", "-q", "-r", path, "-o", "ip.defragment:FALSE", "-z", `io,stat,1,${pairs.map(([, display]) => display).join(",")}`], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    const rows = said.split("\n").filter((row) => row.includes("<>")).map((row) => row.split("|").slice(2, -1).map(Number));
    assert.equal(rows.length, frames.length);
    for (const [i, [text]] of pairs.entries()) {
      const filter = parseFilter(text);
      assert.deepEqual(frames.map((bytes) => filter(plain(bytes))), rows.map((row) => row[i * 2]! > 0), text);
    }
  } finally {
    rmSync(dir, { recursive: true });
  }
});
test("a filter that makes no sense is refused by the word that does not", () => {
  const bad: [string, RegExp][] = [["", /its end is not a word/], ["hosts 1.2.3.4", /"hosts" is not a word/], ["host 1.2.3", /"1.2.3" is not an IPv4/], ["port 65536", /"65536" is not a port/], ["src tcp", /"tcp" is not "host" or "port"/],
    ["ether 1.2.3.4", /"1.2.3.4" is not "host"/], ["ether host 1.2.3.4", /not an Ethernet address/], ["(tcp", /closing bracket/], ["tcp udp", /"udp" stands where/], ["tcp and", /its end is not/], ["not", /its end is not/],
    ["tcp)", /"\)" stands/], ["constructor", /"constructor" is not/], ["x".repeat(1001), /at most 1000/]];
  for (const [text, says] of bad) assert.throws(() => parseFilter(text), (e) => e instanceof UserError && says.test(e.message), text.slice(0, 50));
});
test("frames of any bytes are looked at without a fault", () => {
  const random = seeded(9), filter = parseFilter("not (host 10.0.0.1 or host fe80::1 or port 1 or tcp or udp or icmp or icmp6 or arp or vlan 5 or ether host 00:16:3e:00:00:01)");
  for (let i = 0; i < 10_000; i++) {
    const bytes = random.bytes(random.below(100));
    if (bytes.length > 14) bytes.set(be16(random.pick([0x0800, 0x86dd, 0x0806, 0x8100])), 12);
    filter(plain(bytes));
  }
});
