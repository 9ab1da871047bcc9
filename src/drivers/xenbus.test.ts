import assert from "node:assert/strict";
import { test } from "node:test";
import { XenbusState as S } from "../abi/io/xenbus.ts";
import { Client } from "../xenstore/client.ts";
import { deviceEntries, deviceRoots } from "../xenstore/device-entries.ts";
import { hostEntries } from "../xenstore/domain-entries.ts";
import { Store } from "../xenstore/store.ts";
import { FrontRefusal } from "./ring.ts";
import { type BackDriver, type FrontKeys, XenbusBack } from "./xenbus.ts";

const turn = (): Promise<void> => new Promise((done) => { setTimeout(done, 0); });

/** A device of domain 5 with its nodes; the guest's hand in the store; a driver that writes down what it is told. */
class Bench {
  readonly store = new Store();
  readonly dom0 = new Client(this.store);
  readonly guest: Client;
  readonly told: string[] = [];
  readonly log: string[] = [];
  readonly device = { domid: 5, kind: "vbd", devid: 51712 };
  readonly back: XenbusBack;
  refusal: string | null = null;
  held: PromiseWithResolvers<void> | null = null;
  readonly driver: BackDriver = {
    kind: "vbd", offer: () => ({ sectors: 8 }), onBroken: () => {},
    connect: (front: FrontKeys) => {
      this.told.push(`connect ${front.number("ring-ref", 1, 100)} ${front.text("protocol") ?? "-"}`);
      if (this.refusal) throw new FrontRefusal(this.refusal);
    },
    disconnect: async () => {
      this.told.push("disconnect");
      await this.held?.promise;
    },
  };
  constructor() {
    this.dom0.writeAll(hostEntries());
    this.dom0.writeAll([{ path: "/local/domain/5", perms: ["n0", "r5"] }]);
    this.store.introduce(5);
    this.guest = new Client(this.store, 5);
    this.dom0.transaction((t) => t.writeAll(deviceEntries(this.device, { "virtual-device": 51712 }, { mode: "w" })));
    this.back = new XenbusBack(this.dom0, 5, 51712, this.driver, (s) => this.log.push(s));
  }
  async front(state: number, keys: Record<string, string> = {}): Promise<void> {
    for (const [key, value] of Object.entries({ ...keys, state: String(state) })) this.guest.write(`device/vbd/51712/${key}`, value);
    await turn();
  }
  get state(): number { return Number(this.guest.read(`${this.guest.read("device/vbd/51712/backend")!}/state`)); }
}

test("a device goes through its states: offered, connected, closed, and offered again while it is on line", async () => {
  const b = new Bench();
  assert.equal(b.state, S.InitWait);
  assert.equal(b.guest.read("/local/domain/0/backend/vbd/5/51712/sectors"), "8");
  await b.front(S.Initialised, { "ring-ref": "8", protocol: "x86_64-abi" });
  assert.equal(b.state, S.Connected);
  await b.front(S.Connected);
  assert.deepEqual(b.told, ["connect 8 x86_64-abi"]);
  await b.front(S.Closing);
  assert.equal(b.state, S.Closing);
  await b.front(S.Closed);
  assert.equal(b.state, S.Closed);
  await b.front(S.Initialising);
  assert.equal(b.state, S.InitWait);
  await b.front(S.Connected, { "ring-ref": "9" });
  assert.equal(b.state, S.Connected);
  assert.equal(b.told.at(-1), "connect 9 x86_64-abi");
});

test("a front end that begins anew without having closed is let go of and offered the device again", async () => {
  const b = new Bench();
  await b.front(S.Connected, { "ring-ref": "8" });
  await b.front(S.Initialising);
  assert.deepEqual(b.told, ["connect 8 -", "disconnect"]);
  assert.equal(b.state, S.InitWait);
});

test("a front end that was closed and is loaded once more, as Linux's 9pnet_xen has its rings ready at once", async () => {
  const b = new Bench();
  await b.front(S.Initialised, { "ring-ref": "8" });
  await b.front(S.Closed);
  assert.equal(b.state, S.Closed);
  await b.front(S.Initialised, { "ring-ref": "9" });
  assert.equal(b.state, S.Connected);
  assert.deepEqual(b.told, ["connect 8 -", "disconnect", "connect 9 -"]);
});

test("states that come while the back end is busy are looked at afterwards, the last of them", async () => {
  const b = new Bench();
  await b.front(S.Connected, { "ring-ref": "8" });
  b.held = Promise.withResolvers();
  await b.front(S.Closing);
  await b.front(S.Closed);
  await b.front(S.Initialising);
  b.held.resolve();
  b.held = null;
  await turn();
  assert.equal(b.state, S.InitWait);
  await b.front(S.Connected);
  assert.equal(b.state, S.Connected);
});

test("bad keys close the device with a reason in the store, and good ones open it later", async () => {
  const b = new Bench(), error = (): string | undefined => b.dom0.read("/local/domain/0/error/backend/vbd/5/51712/error");
  for (const bad of [{}, { "ring-ref": "" }, { "ring-ref": "0" }, { "ring-ref": "101" }, { "ring-ref": "-1" }, { "ring-ref": "8x" }, { "ring-ref": "9".repeat(900) }] as Record<string, string>[]) {
    await b.front(S.Connected, bad);
    assert.equal(b.state, S.Closing, JSON.stringify(bad));
    assert.match(error()!, /ring-ref/);
    await b.front(S.Closed);
    await b.front(S.Initialising);
    assert.equal(b.state, S.InitWait);
  }
  b.refusal = "its ring cannot be mapped";
  await b.front(S.Connected, { "ring-ref": "8" });
  assert.equal(error(), "its ring cannot be mapped");
  assert.ok(b.log.every((s) => s.startsWith("d5 vbd 51712: ")));
});

test("states that are none are passed over", async () => {
  const b = new Bench();
  for (const state of [0, 2, 7, 8, 99, -1, Number.NaN]) await b.front(state);
  b.guest.write("device/vbd/51712/state", "connected\0");
  await turn();
  assert.equal(b.state, S.InitWait);
  assert.ok(b.told.every((t) => t === "disconnect"));
});

test("a broken ring closes the device; the guest may begin anew", async () => {
  const b = new Bench();
  await b.front(S.Connected, { "ring-ref": "8" });
  b.driver.onBroken("req_prod is mad");
  await turn();
  assert.equal(b.state, S.Closing);
  await b.front(S.Closed);
  await b.front(S.Initialising);
  await b.front(S.Connected);
  assert.equal(b.state, S.Connected);
});

test("a detach asks the guest and waits; what the guest does not give up stays", async () => {
  const b = new Bench();
  await b.front(S.Connected, { "ring-ref": "8" });
  assert.equal(await b.back.detach(5), false);
  assert.equal(b.state, S.Closing);
  const gone = b.back.detach(10_000);
  await b.front(S.Closed);
  assert.equal(await gone, true);
  assert.equal(b.state, S.Closed);
});

test("nodes taken away under a connected device let it go, and nothing is written after", async () => {
  const b = new Bench();
  await b.front(S.Connected, { "ring-ref": "8" });
  for (const path of deviceRoots(b.device)) b.dom0.remove(path);
  await turn();
  await b.back.close();
  assert.equal(b.told[1], "disconnect");
  assert.equal(b.dom0.read("/local/domain/0/backend/vbd/5/51712/state"), undefined);
});

test("new keys of a connected device come with a word about its state", async () => {
  const b = new Bench(), seen: string[] = [];
  await b.front(S.Connected, { "ring-ref": "8" });
  b.guest.watch("/local/domain/0/backend/vbd/5/51712", (path) => seen.push(path.split("/").at(-1)!));
  await turn();
  b.back.update({ sectors: 16 });
  await turn();
  assert.deepEqual(seen.slice(1), ["sectors", "state"]);
});

test("a front end that is closing keeps the device until it has closed", async () => {
  const b = new Bench();
  await b.front(S.Connected, { "ring-ref": "8" });
  const gone = b.back.detach(10_000);
  assert.equal(await b.back.detach(1), false, "who waits less is told earlier");
  await b.front(S.Closing);
  assert.deepEqual(b.told, ["connect 8 -"], "a mounted disk is still written to");
  assert.equal(b.state, S.Closing);
  await b.front(S.Closed);
  assert.equal(await gone, true);
  assert.deepEqual(b.told, ["connect 8 -", "disconnect"]);
});

test("a ring that is broken while it is connected closes the device", async () => {
  const b = new Bench(), { connect } = b.driver;
  b.driver.connect = (front) => {
    void connect(front);
    b.driver.onBroken("req_prod is mad");
  };
  await b.front(S.Connected, { "ring-ref": "8" });
  assert.equal(b.state, S.Closing);
  assert.equal(b.back.isConnected, false);
  assert.deepEqual(b.told, ["connect 8 -", "disconnect"]);
});

test("a device that is closed while a broken ring is let go of waits for that", async () => {
  const b = new Bench();
  await b.front(S.Connected, { "ring-ref": "8" });
  const held = b.held = Promise.withResolvers();
  b.driver.onBroken("req_prod is mad");
  await turn();
  let isClosed = false;
  const closed = b.back.close().then(() => { isClosed = true; });
  b.held = null;
  await turn();
  assert.equal(isClosed, false);
  held.resolve();
  await closed;
});

test("what the guest says is told without what commands a terminal, and forgotten with the device", async () => {
  const b = new Bench(), error = "/local/domain/0/error/backend/vbd/5/51712/error";
  await b.front(S.Connected, { "ring-ref": "\x1b[2J\n\u202e8" });
  assert.match(b.log[0]!, /ring-ref is "\?\[2J\?\?8"/);
  assert.match(b.dom0.read(error)!, /ring-ref/);
  await b.back.close();
  assert.equal(b.dom0.read(error), undefined);
});

test("a guest that breaks its rings again and again does not fill the log", async () => {
  const b = new Bench();
  for (let i = 0; i < 20; i++) for (const state of [S.Connected, S.Closed, S.Initialising]) await b.front(state);
  assert.equal(b.log.length, 5);
});

test("a detach waits for this connection's end, whatever became of an earlier one", async () => {
  const b = new Bench();
  await b.front(S.Connected, { "ring-ref": "8" });
  b.guest.write("device/vbd/51712/state", "");
  await turn();
  await b.front(S.Initialising);
  await b.front(S.Connected);
  assert.equal(await b.back.detach(5), false);
  assert.equal(b.guest.read("/local/domain/0/backend/vbd/5/51712/online"), "1", "what the guest keeps is offered again after a reload");
});

test("a kernel that begins anew while it is asked to let go has let go", async () => {
  const b = new Bench();
  await b.front(S.Connected, { "ring-ref": "8" });
  const gone = b.back.detach(10_000);
  await b.front(S.Initialising);
  assert.equal(await gone, true);
  assert.equal(b.state, S.Closed);
});
