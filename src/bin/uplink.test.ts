import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { loadLibc } from "../base/libc.node.ts";
import { arp, BROADCAST, ethernet, macNr, TestEnd } from "../network/fixture.ts";
import { Networks } from "../toolstack/networks.ts";
import { parseLink, parseNet, tapUplinks } from "./uplink.ts";

const CLONE_NEWNET = 0x4000_0000;
const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8" });

test("--net is a router, nothing, or an interface with or without a bridge", () => {
  assert.deepEqual(["nat", "none", "tap:tap0", "tap:tap0,bridge=br-lan"].map(parseNet), ["nat", "none", { tap: "tap0" }, { tap: "tap0", bridge: "br-lan" }]);
  for (const text of ["", "Nat", "tap", "tap:", "tap:a,", "tap:a,bridge", "tap:a,bridge=", "tap:a,bridge=b,c=d", "tap:a,master=b"]) {
    assert.throws(() => parseNet(text), { name: "UserError", message: `Option "--net" is one of nat, none, tap:NAME and tap:NAME,bridge=BRIDGE, not "${text}"` });
  }
});

test("--link may listen for pages, of this computer and of named origins", () => {
  assert.deepEqual(parseLink("listen:ws:127.0.0.1:9001"), { bridge: "xenbr0", listens: true, mode: "domus", at: { host: "127.0.0.1", port: 9001 }, origins: [] });
  assert.deepEqual(parseLink("lab=listen:ws:[::1]:1,origin=https://a.example,origin=http://b.example:8080"), { bridge: "lab", listens: true, mode: "domus", at: { host: "::1", port: 1 }, origins: ["https://a.example", "http://b.example:8080"] });
  for (const text of ["ws:127.0.0.1:9001", "listen:ws:127.0.0.1:0", "listen:ws:127.0.0.1:70000", "listen:ws:127.0.0.1:1,qemu", "listen:ws:127.0.0.1:1,origin=https://a/path"]) assert.throws(() => parseLink(text), /is not of the form/);
});

test("the default bridge goes out by the TAP, in the host's bridge, and other bridges by what they had", async (t) => {
  const asked: string[] = [], networks = new Networks(tapUplinks({ tap: "up0", bridge: "br0" }, (bridge) => { asked.push(bridge.name); return null; }, () => {}), () => {});
  assert.equal(networks.bridge("lab").ports.length, 0);
  assert.deepEqual(asked, ["lab"]);
  if (process.getuid?.() !== 0 || loadLibc("The test").unshare(CLONE_NEWNET) !== 0) {
    t.diagnostic(`the TAP itself was not tried: a network namespace wants root with CAP_SYS_ADMIN, and this is user ${process.getuid?.()} without`);
    assert.throws(() => networks.bridge("xenbr0"), /^UserError: \/dev\/net\/tun(?:: permission denied| does not exist)/);
    return;
  }
  assert.throws(() => networks.bridge("xenbr0"), /^UserError: Interface up0 cannot be put into bridge br0: /, "there is no br0 yet");
  ip("link", "add", "br0", "type", "bridge", "stp_state", "0");
  ip("addr", "add", "10.79.0.1/24", "dev", "br0");
  ip("link", "set", "br0", "up");
  const end = new TestEnd("vif1.0", networks.bridge("xenbr0").attach({ name: "vif1.0" })), isAnswer = () => end.got.some(({ bytes }) => bytes[12] === 8 && bytes[13] === 6 && bytes[21] === 2);
  for (let i = 0; i < 500 && !isAnswer(); i++) {
    if (i % 20 === 0) end.send(ethernet(BROADCAST, macNr(5), 0x0806, arp(1, macNr(5), "10.79.0.5", "10.79.0.1")));
    await new Promise((resolve) => { setTimeout(resolve, 5); });
  }
  assert.ok(isAnswer(), "the host answers on its bridge");
  assert.equal(networks.uplink("xenbr0")!.forward, undefined, "only a router forwards ports");
  assert.equal((networks.describe()[1]!.uplink as { tap: string }).tap, "up0");
  await networks.close();
  assert.doesNotMatch(ip("link", "show"), /up0/);
});
