/** The bridge against a model that knows no table of forms, waits or shortcuts: random ports, frames, moves, silences and full ends, from a seed. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Bridge, type BridgePort } from "./bridge.ts";
import { ManualClock } from "./clock.ts";
import { BROADCAST, be16, ethernet, macNr, plain, seeded, TestEnd } from "./fixture.ts";
import { connect } from "./port.ts";
import type { VlanOptions } from "./vlan.ts";

const VIDS = [0, 5, 7, 9], NR_STATIONS = 24, MULTICAST = "01:00:5e:00:00:01";
type Node = { vlan: VlanOptions; isolated: boolean; macs: Set<string> | null; port: BridgePort; end: TestEnd; refusedAtMs: number | null };

/** What leaves `node` of a frame of this VLAN: its tags, or null. */
function tagsOut(node: Node, vid: number, priority: number, inner: number[]): number[] | null {
  const v = node.vlan;
  if ("access" in v) return v.access === vid && inner.length === 0 ? [] : null;
  if (v.native === vid) return inner.length === 0 ? [] : null;
  return vid !== 0 && (v.trunk === "all" || v.trunk.includes(vid)) ? [priority | vid, ...inner] : null;
}
/** Which VLAN, with which priority and inner tags, a frame with these tags is of. */
function tagsIn(node: Node, tags: number[]): { vid: number; priority: number; inner: number[] } | null {
  const v = node.vlan, [tci, ...inner] = tags, untagged = "access" in v ? v.access : v.native;
  if (tci === undefined) return untagged === undefined ? null : { vid: untagged, priority: 0, inner };
  const vid = tci & 0xfff, priority = tci & 0xf000;
  if (vid === 0) return untagged === undefined || inner.length > 0 ? null : { vid: untagged, priority, inner };
  return "trunk" in v && vid !== 0xfff && (v.trunk === "all" || v.trunk.includes(vid)) ? { vid, priority, inner } : null;
}

function run(seed: number): number {
  const random = seeded(seed), clock = new ManualClock(), bridge = new Bridge({ name: "sim", clock });
  const chance = (percent: number) => random.below(100) < percent;
  const vlan = (): VlanOptions => chance(60) ? { access: random.pick(VIDS) }
    : { trunk: chance(30) ? "all" : VIDS.filter((vid) => vid > 0 && chance(60)), ...(chance(50) ? { native: random.pick(VIDS) } : {}) };
  let nrNames = 0;
  const plug = (): Node => {
    const options = { vlan: vlan(), isolated: chance(30) }, macs = chance(25) ? [macNr(1 + random.below(4)), macNr(100 + nrNames)] : null;
    const port = bridge.attach({ name: `p${nrNames++}`, ...options, ...(macs ? { macs } : {}) }), end = new TestEnd(port.name);
    connect(port, end);
    return { ...options, macs: macs ? new Set(macs) : null, port, end, refusedAtMs: null };
  };
  /** the model: where an address was last heard in a VLAN, and whether it is that port's own */
  const heard = new Map<string, { node: Node; atMs: number; own: boolean }>();
  const nodes: Node[] = [];
  const add = () => {
    const node = plug();
    nodes.push(node);
    if ("access" in node.vlan) for (const mac of node.macs ?? []) heard.set(`${node.vlan.access} ${mac}`, { node, atMs: clock.nowMs(), own: true });
  };
  for (let i = 0; i < 7; i++) add();
  let nrDelivered = 0;

  for (let step = 0; step < 1500; step++) {
    if (chance(2)) clock.advance(chance(20) ? 301_000 : random.below(3000));
    if (chance(1)) {
      const [gone] = nodes.splice(random.below(nodes.length), 1);
      gone!.port.detach();
      for (const [key, where] of heard) if (where.node === gone) heard.delete(key);
      add();
    }
    if (chance(10)) {
      const node = random.pick(nodes), wasFull = node.end.room === 0;
      node.end.room = wasFull ? Infinity : 0;
      if (wasFull) { node.refusedAtMs = null; node.port.ready(); }
    }
    const from = random.pick(nodes), nr = 1 + random.below(NR_STATIONS), source = from.macs && chance(90) ? random.pick([...from.macs]) : macNr(nr);
    const to = chance(20) ? random.pick([BROADCAST, MULTICAST]) : macNr(1 + random.below(NR_STATIONS));
    const tags = chance(50) ? [] : Array.from({ length: chance(85) ? 1 : 2 }, () => (random.below(16) << 12) | random.pick([...VIDS, 11, 0xfff]));
    const payload = be16(step).concat(Array.from({ length: 44 }, () => 0)), bytes = ethernet(to, source, 0x88b5, payload, tags);

    // What the model says.
    const nowMs = clock.nowMs(), expected = new Map<Node, number[]>(), place = tagsIn(from, tags), own = from.macs?.has(source) ?? false;
    let isTaken = true;
    const before = place && heard.get(`${place.vid} ${source}`), isFree = !before || before.node === from || own || !before.own;
    // An address that went from port to port seconds ago may be held where it is: such moves wait in this world.
    const isMove = before && before.node !== from && !own && !before.own && nowMs - before.atMs < 300_000;
    if (isMove) { clock.advance(11_000); }
    const thenMs = clock.nowMs();
    if (place && (!from.macs || own) && isFree) {
      const { vid, priority, inner } = place, at = heard.get(`${vid} ${to}`);
      if (!before || before.node !== from || !before.own) heard.set(`${vid} ${source}`, { node: from, atMs: thenMs, own });
      else before.atMs = thenMs;
      const known = to === source ? { node: from, atMs: thenMs, own } : to.startsWith("01") || to === BROADCAST ? undefined : at;
      const isKnown = known && (known.own || thenMs - known.atMs < 300_000);
      for (const node of isKnown ? [known.node] : nodes) {
        if (node === from || (node.isolated && from.isolated)) continue;
        const v = node.vlan, isMember = "access" in v ? v.access === vid : v.native === vid || (vid !== 0 && (v.trunk === "all" || v.trunk.includes(vid)));
        if (!isMember) continue;
        const isStalled = node.refusedAtMs !== null && thenMs - node.refusedAtMs >= 1000, out = tagsOut(node, vid, priority, inner);
        if (node.end.room > 0) { if (out) expected.set(node, out); continue; }
        // The port learns that its end is full only by a frame that could leave.
        if (node.refusedAtMs === null && !out) continue;
        node.refusedAtMs ??= thenMs;
        if (isKnown && !isStalled) isTaken = false;
      }
    }
    // What the bridge does.
    const what = `seed ${seed}, step ${step}: ${source} to ${to} with tags [${tags.map((t) => t.toString(16))}] from ${from.port.name}`;
    assert.equal(from.end.peer!.receive(plain(bytes)), isTaken, what);
    for (const node of nodes) {
      const tagsWanted = expected.get(node);
      assert.deepEqual(node.end.take(), tagsWanted ? [ethernet(to, source, 0x88b5, payload, tagsWanted).toHex()] : [], `${what}, at ${node.port.name}`);
      if (tagsWanted) nrDelivered++;
    }
  }
  return nrDelivered;
}

test("a bridge delivers what its model delivers, in the same form, and nothing else", () => {
  let nrDelivered = 0;
  for (let seed = 1; seed <= 40; seed++) nrDelivered += run(seed);
  assert.ok(nrDelivered > 20_000, `only ${nrDelivered} frames arrived`);
});
