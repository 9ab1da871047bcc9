import assert from "node:assert/strict";
import { test } from "node:test";
import { SRING } from "../../abi/io/ring.ts";
import { NETIF_RX_SLOT_BYTES, NETIF_TX_SLOT_BYTES } from "../../abi/io/netif.ts";
import { keysOf } from "../block/fixture.ts";
import { FrontRing, GuestPages } from "../fixture.ts";
import { FrontRefusal } from "../ring.ts";
import { NetDriver } from "./driver.ts";
import { Recorder } from "./fixture.ts";

/** A device whose front end may bind to some ports only. */
function setUp(keys: Record<string, string | number>, ports: readonly number[] = [1, 2]) {
  const mem = new GuestPages(16), tx = new FrontRing(mem, 1, NETIF_TX_SLOT_BYTES), rx = new FrontRing(mem, 1, NETIF_RX_SLOT_BYTES), bound = new Set<number>(), port = new Recorder();
  const driver = new NetDriver({
    name: "vif1.0", domid: 1, devid: 0, mac: "00:16:3e:00:00:01", grants: mem, port, log: () => {},
    bind: (nr) => {
      if (!ports.includes(nr)) throw new FrontRefusal(`port ${nr}`);
      bound.add(nr);
      return { notify: () => {}, isHeld: () => true, close: () => { bound.delete(nr); } };
    },
  });
  return { mem, tx, rx, bound, port, driver, connect: () => driver.connect(keysOf({ "request-rx-copy": 1, "tx-ring-ref": tx.refs[0]!, "rx-ring-ref": rx.refs[0]!, ...keys })) };
}

test("one event or two, and what an earlier front end left does not mislead", () => {
  for (const [keys, wanted] of [[{ "event-channel": 1 }, [1]], [{ "event-channel-tx": 1, "event-channel-rx": 2 }, [1, 2]], [{ "event-channel": 9, "event-channel-tx": 1, "event-channel-rx": 2 }, [1, 2]]] as const) {
    const t = setUp(keys);
    t.connect();
    assert.deepEqual([...t.bound], wanted);
    t.driver.disconnect();
    assert.deepEqual([t.bound.size, t.mem.nrMapped, t.port.peer], [0, 0, null]);
    assert.deepEqual(t.mem.faults, []);
  }
});

test("a front end that cannot be connected to leaves nothing bound, mapped or plugged in", () => {
  for (const keys of [{ "event-channel": 9 }, { "event-channel-tx": 1, "event-channel-rx": 9 }, { "event-channel": 1, "request-rx-copy": 0 }, { "event-channel": 1, "tx-ring-ref": 0x999 }, { "event-channel": 1, "rx-ring-ref": 0x999 }]) {
    const t = setUp(keys);
    assert.throws(t.connect, FrontRefusal, JSON.stringify(keys));
    assert.deepEqual([t.bound.size, t.mem.nrMapped, t.port.peer], [0, 0, null]);
  }
});

test("a ring that is broken from the start is told of, and let go of afterwards", () => {
  const t = setUp({ "event-channel": 1 }), broken: string[] = [];
  t.driver.onBroken = (why) => broken.push(why);
  t.tx.store(SRING.req_prod, 1000);
  t.connect();
  assert.match(broken[0]!, /1000/);
  t.driver.disconnect();
  assert.deepEqual([t.bound.size, t.mem.nrMapped, t.port.peer], [0, 0, null]);
  assert.deepEqual(t.mem.faults, []);
});

test("a device that has moved says where its address is now, once it is connected: RARP", () => {
  const t = setUp({ "event-channel": 1 });
  t.driver.announce();
  assert.equal(t.port.frames.length, 0, "nobody is there yet");
  t.connect();
  t.driver.announce();
  assert.deepEqual(t.port.frames.map(({ bytes }) => Buffer.from(bytes).toString("hex")), [`ffffffffffff00163e000001${"8035"}${"0001080006040003"}00163e000001${"00000000"}00163e000001${"0".repeat(44)}`]);
  t.driver.disconnect();
});
