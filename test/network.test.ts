/**
 * Stock Debian kernels on this process's bridges and router: their own netfront and TCP against our back ends, busybox against a server of Node's. Two guests carry all
 * checks, over IPv4 and IPv6; interfaces come and go while they run.
 */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { networkInterfaces } from "node:os";
import { after, before, describe, test } from "node:test";
import { natUplinks } from "../src/bin/uplink.ts";
import { dom0Ends } from "../src/drivers/dom0.ts";
import { NetDriver } from "../src/drivers/net/driver.ts";
import { XenbusBack } from "../src/drivers/xenbus.ts";
import type { PortDescription } from "../src/network/bridge.ts";
import type { VifConfig } from "../src/toolstack/config.ts";
import { nodeHost } from "../src/toolstack/host.node.ts";
import { createMachine, type Machine } from "../src/toolstack/machine.ts";
import { attachVif } from "../src/toolstack/vif.ts";
import { deviceEntries, deviceRoots } from "../src/xenstore/device-entries.ts";
import { imagesMissing } from "./guest.ts";
import { Talk } from "./talk.ts";

const sha1 = (bytes: Uint8Array): string => createHash("sha1").update(bytes).digest("hex");
const BODY_BYTES = 20_000_000, PART_BYTES = 6_000_000, body = randomBytes(BODY_BYTES), SHA1 = sha1(body), PART_SHA1 = sha1(body.subarray(0, PART_BYTES));
const sum = (text: string): string => text.split(" ")[0]!;
/** Why there is no IPv6 to be tried, or false. */
const NO_IPV6 = Object.values(networkInterfaces()).flat().some((i) => i?.address === "::1") ? false : "this computer has no IPv6 at all, not even ::1";
/** The first bridge's IPv6 network, and what a kernel makes of its interface's address in it. */
const HERE = "fd64:6f6d:7573:2:", v6Of = (g: number): string => `${HERE}216:3eff:fe00:${g}00`;
/** An address of guest `g`'s interface `devid`. */
const macOf = (g: number, devid: number): string => `00:16:3e:00:0${g}:0${devid}`;

describe("Debian guests' networks", { skip: imagesMissing(), timeout: 600_000 }, () => {
  let machine: Machine, a: Talk, b: Talk, server: Server, server6: Server, url: string;
  const told: string[] = [];
  const attach = (guest: Talk, devid: number, config: Partial<VifConfig>): Promise<void> =>
    attachVif(guest.domain.devices, machine.networks, machine.dom0, guest.domain.domid, devid, { mac: macOf(guest === a ? 1 : 2, devid), ...config }, machine.log);
  const detach = (guest: Talk, devid: number, isForced = false): Promise<void> => guest.domain.devices.remove("vif", devid, isForced);
  const port = (bridge: string, guest: Talk, devid: number): PortDescription => machine.networks.bridge(bridge).describe().ports.find((p) => p.name === `vif${guest.domain.domid}.${devid}`)!;
  /** Wait for an interface and give it an address. */
  const up = (guest: Talk, name: string, address: string): Promise<string> => guest.until(`ip link set ${name} up`).then(() => guest.ok(`ip address replace ${address}/24 dev ${name}`));
  /** Whether an answer comes, to one ping of `tries`. */
  const pings = async (from: Talk, address: string, tries = 30): Promise<boolean> => (await from.run(`n=0; until ping -c 1 -W 1 ${address}; do n=$((n+1)); [ $n -lt ${tries} ] || break; done >/dev/null; [ $n -lt ${tries} ]`)).code === 0;
  /** Send a file by TCP. @returns its sum at the other end */
  async function send(from: Talk, to: Talk, address: string, file: string): Promise<string> {
    // A listener whose input has an end shuts its half down, and busybox's nc at the other end takes that for the whole.
    await to.ok("rm -f /tmp/sum; (nc -l -p 5000 0<>/tmp/open | sha1sum > /tmp/sum.new; mv /tmp/sum.new /tmp/sum) & until netstat -ltn | grep -q :5000; do usleep 50000; done");
    await from.ok(`nc ${address} 5000 < ${file}`);
    return sum(await to.until("cat /tmp/sum"));
  }

  before(async () => {
    [server, server6] = [1, 2].map(() => createServer((_, response) => { response.setHeader("content-length", BODY_BYTES).end(body); })) as [Server, Server];
    if (!NO_IPV6) await new Promise<void>((listening) => server6.listen(0, "::1", listening));
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    url = `http://host.domus.internal:${(server.address() as AddressInfo).port}/`;
    const log = (s: string): void => { told.push(s); }, uplinks = natUplinks({ hostAccess: true, rules: [], log });
    machine = await createMachine({ host: nodeHost(), memoryMiB: 288, nrDomains: 2, log: (s) => told.push(s), uplink: (bridge) => (bridge.name === "xenbr0" ? uplinks(bridge) : null) });
    [a, b] = await Promise.all([1, 2].map((g) => Talk.boot(machine, { name: `net${g}`, memoryMiB: 128, vifs: [{ mac: macOf(g, 0), ...(g === 2 ? { forwards: ["tcp:127.0.0.1:0-8080", ...(NO_IPV6 ? [] : [`tcp:[::1]:0-[${v6Of(2)}]:8080`])] } : {}) }] }))) as [Talk, Talk];
    await b.ok("mkfifo /tmp/open");
  });
  after(async () => {
    await machine?.destroy();
    server?.close();
    server6?.close();
  });

  test("guests get an address, a route and names from the router", async () => {
    for (const [guest, g] of [[a, 1], [b, 2]] as const) {
      assert.match(await guest.until("ip -4 address show dev eth0 | grep inet"), /inet 10\.0\.2\.\d+\/24/);
      assert.match(await guest.ok("ip link show dev eth0"), new RegExp(macOf(g, 0)));
      assert.match(await guest.ok("ip route"), /^default via 10\.0\.2\.1 dev eth0/m);
      assert.match(await guest.ok("nslookup host.domus.internal"), /Address(?: 1)?:\s+10\.0\.2\.2/);
    }
  });

  test("20 MB come from the host's loopback as they were sent, and go on to the other guest", async () => {
    assert.equal(sum(await a.ok(`wget -q -O /tmp/f ${url} && sha1sum /tmp/f`)), SHA1);
    const address = /inet ([\d.]+)/.exec(await b.ok("ip -4 address show dev eth0"))![1]!;
    assert.equal(await send(a, b, address, "/tmp/f"), SHA1);
    await a.ok(`dd if=/tmp/f of=/tmp/part bs=100000 count=${PART_BYTES / 100_000} 2>/dev/null`);
  });

  test("a forwarded port of the host leads to the guest's server", async () => {
    await b.ok("cd /tmp; dd if=/dev/urandom of=g bs=64k count=46 2>/dev/null; httpd -p 8080 -h /tmp; cd /");
    const { forwards } = machine.networks.describe()[0]!.uplink as { forwards: { port: number }[] };
    const response = await fetch(`http://127.0.0.1:${forwards[0]!.port}/g`);
    assert.equal(response.status, 200);
    assert.equal(sha1(new Uint8Array(await response.arrayBuffer())), sum(await b.ok("sha1sum /tmp/g")));
  });

  test("their kernels make an IPv6 address from what the router says, and find it and the names there", async () => {
    const { isRouted } = (machine.networks.describe()[0]!.uplink as { ipv6: { isRouted: boolean } }).ipv6;
    for (const [guest, g] of [[a, 1], [b, 2]] as const) {
      assert.match(await guest.until("ip -6 address show dev eth0 scope global | grep -v tentative | grep inet6"), new RegExp(`inet6 ${v6Of(g)}/64`));
      const route = await guest.ok("ip -6 route");
      assert.match(route, new RegExp(`^${HERE}:/64 dev eth0`, "m"));
      assert.equal(/^default via fe80::d0:aff:fe00:201 dev eth0/m.test(route), isRouted, "a way out is promised where this computer has one");
      for (const to of [`${HERE}:1`, `${HERE}:2`, "fe80::d0:aff:fe00:201%eth0", v6Of(3 - g)]) await guest.ok(`ping6 -c 1 -W 20 ${to}`);
      assert.match(await guest.ok("nslookup host6.domus.internal"), new RegExp(`Address(?: \\d)?:\\s+${HERE}:2`));
    }
    assert.notEqual((await a.run("ping6 -c 1 -W 1 2002:7f00:1::1")).code, 0);
  });

  test("over IPv6 20 MB come from the host's ::1, and a forwarded port of it leads to the guest", { skip: NO_IPV6 }, async () => {
    const { port: at } = server6.address() as AddressInfo;
    assert.equal(sum(await a.ok(`wget -q -O - http://host6.domus.internal:${at}/ | sha1sum`)), SHA1);
    const { forwards } = machine.networks.describe()[0]!.uplink as { forwards: { address: string; port: number }[] }, forward = forwards.find((f) => f.address === "::1")!;
    const response = await fetch(`http://[::1]:${forward.port}/g`);
    assert.equal(sha1(new Uint8Array(await response.arrayBuffer())), sum(await b.ok("sha1sum /tmp/g")));
  });

  test("what IPv6 cannot reach fails at once, with a default route of the guest's own", async () => {
    await a.ok("ip -6 route replace default via fe80::d0:aff:fe00:201 dev eth0");
    for (const to of ["2002:7f00:1::1", "64:ff9b::7f00:1", "fec0::1"]) {
      const begunMs = performance.now(), { out, code } = await a.run(`nc ${to} 9`);
      assert.ok(code !== 0 && /unreachable/i.test(out), out);
      assert.ok(performance.now() - begunMs < 30_000);
    }
  });

  test("interfaces that come while the guests run are parted by their VLANs", async () => {
    await attach(a, 1, { bridge: "lan", vlan: { access: 10 } });
    await attach(b, 1, { bridge: "lan", vlan: { access: 20 } });
    await up(a, "eth1", "192.168.1.1");
    await up(b, "eth1", "192.168.1.2");
    assert.equal(await pings(a, "192.168.1.2", 2), false);
    await detach(b, 1);
    await b.until("test ! -e /sys/class/net/eth1");
    await attach(b, 1, { bridge: "lan", vlan: { access: 10 } });
    await up(b, "eth1", "192.168.1.2");
    assert.equal(await pings(a, "192.168.1.2"), true);
  });

  test("a guest with ips sends from them and from no others", async () => {
    await attach(a, 2, { bridge: "guarded" });
    await attach(b, 2, { bridge: "guarded", ips: ["192.168.2.2", "fd00:2::2"] });
    await up(a, "eth2", "192.168.2.1");
    await up(b, "eth2", "192.168.2.2");
    assert.equal(await pings(b, "192.168.2.1"), true);
    await a.ok("ip address add fd00:2::1/64 dev eth2");
    await b.ok("ip address add fd00:2::2/64 dev eth2");
    await b.until("ping6 -c 1 -W 1 fd00:2::1");
    await b.ok("ip address del fd00:2::2/64 dev eth2; ip address add fd00:2::3/64 dev eth2");
    await b.until("ip -6 address show dev eth2 | grep :3/64 | grep -v tentative");
    const { ip: ip6 } = port("guarded", b, 2).counters.dropped;
    assert.notEqual((await b.run("ping6 -c 1 -W 2 fd00:2::1")).code, 0);
    const { ip } = port("guarded", b, 2).counters.dropped;
    assert.ok(ip > ip6);
    await b.ok("ip address flush dev eth2; ip address add 192.168.2.3/24 dev eth2; ip link set eth2 up");
    assert.equal(await pings(b, "192.168.2.1", 2), false);
    assert.ok(port("guarded", b, 2).counters.dropped.ip > ip);
    await b.ok("ip address flush dev eth2; ip address add 192.168.2.2/24 dev eth2; ip link set eth2 down; ip link set eth2 address 00:16:3e:00:00:99; ip link set eth2 up");
    assert.equal(await pings(b, "192.168.2.1", 2), false);
    assert.ok(port("guarded", b, 2).counters.dropped.mac > 0);
  });

  test("a guest with a rate sends no faster, others are not held up, and its interface can be taken while it sends", async () => {
    const rate = { bytesPerInterval: 10_000, intervalUs: 50_000 };
    await attach(a, 3, { bridge: "slow", rate });
    await attach(b, 3, { bridge: "slow" });
    await up(a, "eth3", "192.168.3.1");
    await up(b, "eth3", "192.168.3.2");
    assert.equal(await pings(a, "192.168.3.2"), true);
    await b.ok("nc -l -p 6000 0<>/tmp/open > /dev/null & until netstat -ltn | grep -q :6000; do usleep 50000; done");
    const before = port("slow", a, 3).counters.rxBytes, begunMs = performance.now();
    await a.ok("nc 192.168.3.2 6000 < /tmp/f & true");
    assert.equal(await send(a, b, "192.168.1.2", "/tmp/part"), PART_SHA1);
    const bytes = port("slow", a, 3).counters.rxBytes - before, seconds = (performance.now() - begunMs) / 1000;
    assert.ok(bytes > 0 && bytes <= 200_000 * seconds + 256_000, `${bytes} bytes in ${seconds} s`);
    await detach(a, 3);
    await a.until("test ! -e /sys/class/net/eth3");
    assert.equal(await pings(a, "192.168.1.2"), true);
  });

  test("a driver that is unbound and bound again has its network again", async () => {
    await a.ok("echo vif-1 > /sys/bus/xen/drivers/vif/unbind; test ! -e /sys/class/net/eth1; echo vif-1 > /sys/bus/xen/drivers/vif/bind");
    await up(a, "eth1", "192.168.1.1");
    assert.equal(await pings(a, "192.168.1.2"), true);
    assert.deepEqual(a.domain.devices.list("vif").map((d) => d.state), [4, 4, 4]);
  });

  test("another back end goes on where the last one left the rings, while the guest sends", async () => {
    const { domid } = a.domain, devid = 4, mac = macOf(1, devid), bridge = machine.networks.bridge("lan"), cable = bridge.attach({ name: "again", vlan: { access: 10 } });
    const begin = (): XenbusBack => new XenbusBack(machine.xs, domid, devid, new NetDriver({ name: "again", domid, devid, mac, port: cable, ...dom0Ends(machine.dom0, domid), log: machine.log }), machine.log);
    machine.xs.transaction((t) => t.writeAll(deviceEntries({ domid, kind: "vif", devid }, { handle: devid, mac }, { handle: devid, mac })));
    let back = begin();
    await a.until("test -e /sys/class/net/eth3");
    await a.ok("ip address flush dev eth1");
    await up(a, "eth3", "192.168.1.3");
    const sent = send(a, b, "192.168.1.2", "/tmp/part");
    for (let nr = 0; nr < 3; nr++) {
      const { rxBytes } = cable.counters;
      while (cable.counters.rxBytes < rxBytes + 1_000_000) await new Promise((resume) => setTimeout(resume, 5));
      await back.close();
      back = begin();
    }
    assert.equal(await sent, PART_SHA1);
    assert.ok(await back.detach(60_000));
    await back.close();
    cable.detach();
    for (const root of deviceRoots({ domid, kind: "vif", devid })) machine.xs.remove(root);
  });

  test("a guest that is asked to reboots, and one that is destroyed leaves nothing on the bridges", async () => {
    assert.equal(a.domain.control.shutdown("reboot"), true);
    assert.equal((await a.domain.wait()).reason, "reboot");
    await a.domain.destroy();
    await b.domain.destroy();
    assert.deepEqual(machine.networks.describe().map(({ bridge }) => [bridge.name, bridge.ports.map((p) => p.name)]), [["xenbr0", ["xenbr0-nat"]], ["lan", []], ["guarded", []], ["slow", []]]);
    assert.deepEqual([machine.xs.list("/local/domain/0/backend/vif"), machine.xs.list("/libxl")], [undefined, []]);
  });
});
