import assert from "node:assert/strict";
import { test } from "node:test";
import { XenbusState as S } from "../abi/io/xenbus.ts";
import { Client } from "../xenstore/client.ts";
import { hostEntries } from "../xenstore/domain-entries.ts";
import { Store } from "../xenstore/store.ts";
import { type Attached, Devices, sparingly } from "./devices.ts";

const turn = (): Promise<void> => new Promise((done) => { setTimeout(done, 0); });
const BACK = "/local/domain/0/backend/vbd/5/768";

/** Devices of domain 5, whose driver lets go when it is told. */
function setUp() {
  const store = new Store(), xs = new Client(store), told: string[] = [], go = Promise.withResolvers<void>();
  xs.writeAll(hostEntries());
  xs.writeAll([{ path: "/local/domain/5", perms: ["n0", "r5"] }]);
  store.introduce(5);
  const guest = new Client(store, 5), devices = new Devices(xs, 5, () => {});
  const disk = (name: string): Attached => ({
    driver: {
      kind: "vbd", offer: () => ({}), connect: () => { told.push(`connect ${name}`); }, onBroken: () => {}, describe: () => ({ name }),
      disconnect: async () => { if (name === "slow") await go.promise; },
    },
    release: () => { told.push(`release ${name}`); },
  });
  const front = async (state: number): Promise<void> => { guest.write("device/vbd/768/state", String(state)); await turn(); };
  return { xs, devices, disk, told, go, front, add: (name: string) => devices.add(768, disk(name), {}, {}) };
}

test("a device's number is taken until the last of it is gone", async () => {
  const t = setUp();
  t.add("slow");
  await t.front(S.Connected);
  const removed = t.devices.remove("vbd", 768, true);
  await turn();
  assert.throws(() => t.add("next"), /has a vbd 768 already/);
  t.go.resolve();
  await removed;
  assert.deepEqual(t.told, ["connect slow", "release slow"]);
  t.add("next");
  await turn();
  assert.equal(t.xs.read(`${BACK}/state`), String(S.InitWait));
});

test("a device that stays keeps its domain here, and nothing is let go of", async () => {
  const t = setUp();
  let why: string | null = null;
  t.devices.add(768, { ...t.disk("a"), obstacle: (isAsItIs) => (isAsItIs ? null : why) }, {}, {});
  await t.front(S.Connected);
  await t.devices.hold(false);
  await t.devices.goOn();
  why = "it is in use";
  assert.deepEqual([t.devices.obstacle(false), t.devices.obstacle(true)], [why, null]);
  t.told.length = 0;
  await assert.rejects(t.devices.hold(false), { name: "UserError", message: "Domain 5 cannot be saved or moved: it is in use" });
  assert.deepEqual(t.told, []);
});

test("who takes a device away twice, and the domain's end meanwhile, all wait for the one end", async () => {
  const t = setUp(), done: string[] = [];
  t.add("slow");
  await t.front(S.Connected);
  const all = [t.devices.remove("vbd", 768).then(() => done.push("asked")), t.devices.remove("vbd", 768, true).then(() => done.push("forced")), t.devices.close().then(() => done.push("closed"))];
  await turn();
  assert.deepEqual(done, []);
  t.go.resolve();
  await Promise.all(all);
  assert.equal(done.length, 3);
  assert.deepEqual(t.told, ["connect slow", "release slow"]);
  assert.equal(t.xs.read(`${BACK}/state`), undefined);
});

for (const how of ["when the guest has noticed", "when the domain goes"] as const) {
  test(`a device taken by force is the host's at once, and the guest gets answers until it is over: ${how}`, async () => {
    const t = setUp(), held = { is: true }, driver = t.disk("taken").driver;
    t.devices.add(768, { ...t.disk("taken"), driver: { ...driver, refuse: async () => { t.told.push("refuse"); }, nudge: () => held.is, disconnect: () => { t.told.push("disconnect"); } } }, {}, {});
    await t.front(S.Connected);
    let isOver = false;
    const removed = t.devices.remove("vbd", 768, true).then(() => { isOver = true; });
    while (!t.told.includes("release taken")) await turn();
    assert.deepEqual([t.told, isOver, t.xs.read(`${BACK}/state`)], [["connect taken", "refuse", "release taken"], false, undefined]);
    assert.throws(() => t.add("next"), /has a vbd 768 already/);
    if (how === "when the domain goes") await t.devices.close();
    else held.is = false;
    await removed;
    assert.equal(t.told.at(-1), "disconnect");
  });
}

test("a domain that is going gets no device any more", async () => {
  const t = setUp();
  await t.devices.close();
  assert.throws(() => t.add("late"), /Domain 5 is going/);
  assert.equal(t.xs.read(`${BACK}/state`), undefined);
});

test("what no driver has taken up goes at once; what is not there is an error", async () => {
  const t = setUp();
  t.add("fast");
  await assert.rejects(t.devices.remove("vbd", 769), /has no vbd 769/);
  await t.devices.remove("vbd", 768);
  assert.deepEqual(t.devices.list(), []);
});

test("a device says no more than a reader can bear", () => {
  const said: string[] = [];
  let nowMs = 0;
  const log = sparingly((sentence) => said.push(sentence), () => nowMs);
  for (let i = 0; i < 1000; i++) log(`${i}`);
  assert.equal(said.length, 32);
  nowMs = 150_000;
  for (let i = 0; i < 1000; i++) log(`later ${i}`);
  assert.deepEqual(said.slice(32), ["later 0", "later 1"]);
});

test("a device that cannot settle does not keep the others from being taken up again", async () => {
  const t = setUp();
  const slow = t.disk("slow"), { driver } = slow;
  t.devices.add(768, { ...slow, driver: { ...driver, disconnect: async () => { await t.go.promise; t.told.push("disconnected"); } } }, {}, {});
  await t.front(S.Connected);
  t.devices.add(832, { ...t.disk("full"), settle: () => Promise.reject(new Error("ENOSPC")) }, {}, {});
  const held = t.devices.hold(true).then(() => assert.fail("it is not settled"), async (e: Error) => { await t.devices.goOn(); return e.message; });
  await turn();
  t.go.resolve();
  assert.equal(await held, "ENOSPC");
  await turn();
  assert.deepEqual(t.told, ["connect slow", "disconnected", "connect slow"]);
});
