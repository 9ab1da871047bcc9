import assert from "node:assert/strict";
import test from "node:test";
import { XENSTORE_RING_SIZE as RING, XENSTORE_ERROR, XenstoreDomainInterface as PAGE, XS } from "../abi/io/xs_wire.ts";
import { Client } from "./client.ts";
import { GuestRing } from "./fixture.ts";
import { StoreRing } from "./ring.ts";
import { Store } from "./store.ts";
import { encodePacket, fromBytes, type Packet, PacketReader, strings, toBytes } from "./wire.ts";

test("requests go through the page and the guest is notified", () => {
  const g = new GuestRing();
  assert.deepEqual(g.ask(XS.GET_DOMAIN_PATH, "1"), ["/local/domain/1\0"]);
  assert.equal(g.nrNotified, 1);
  g.ring.poll();
  assert.equal(g.nrNotified, 1, "nothing moved, nobody is woken");
  assert.deepEqual(g.ask(XS.MKDIR, "data"), ["OK\0"]);
  assert.deepEqual(g.ask(XS.READ, "none"), ["ENOENT\0"]);
});

test("a request in pieces is answered when it is whole, and indexes wrap at 2^32", () => {
  const g = new GuestRing();
  for (const f of [PAGE.req_prod, PAGE.req_cons, PAGE.rsp_prod, PAGE.rsp_cons]) g.words[g.at(f)] = -10;
  const ring = new StoreRing(g.words, g.page, () => {}, g.store, 1);
  const packet = encodePacket({ type: XS.GET_DOMAIN_PATH, req_id: 1, tx_id: 0, payload: strings("1") });
  for (const byte of packet) {
    assert.deepEqual(g.receive(), []);
    g.put(Uint8Array.of(byte));
    ring.poll();
  }
  assert.equal(fromBytes(g.receive()[0]!.payload), "/local/domain/1\0");
});

test("what comes without an event while the server has just looked is found all the same", async () => {
  const g = new GuestRing(), packet = encodePacket({ type: XS.GET_DOMAIN_PATH, req_id: 1, tx_id: 0, payload: strings("1") });
  g.put(packet.subarray(0, 16));
  g.ring.poll();
  g.put(packet.subarray(16));       // and the guest took the server for awake
  let got: Packet[] = [];
  while (got.length === 0) {
    await new Promise((resume) => { setTimeout(resume, 1); });
    got = g.receive();
  }
  assert.equal(fromBytes(got[0]!.payload), "/local/domain/1\0");
  g.ring.close();
});

test("it is still when nothing is on its way: no request, no piece of one, no transaction, nothing that the guest has no room for", () => {
  const g = new GuestRing(), dom0 = new Client(g.store), packet = encodePacket({ type: XS.GET_DOMAIN_PATH, req_id: 1, tx_id: 0, payload: strings("1") });
  const looks = (wanted: boolean, what: string): void => assert.equal(g.ring.isStill, wanted, what);
  looks(true, "new");
  g.put(packet.subarray(0, 10));
  looks(false, "a request waits");
  g.ring.poll();
  looks(false, "half of it has been taken");
  g.put(packet.subarray(10));
  g.ring.poll();
  looks(true, "answered; that the guest has not read it yet lies in its page");
  g.receive();
  const id = Number.parseInt(g.ask(XS.TRANSACTION_START, "")[0]!, 10);
  looks(false, "a transaction is open");
  g.send(XS.TRANSACTION_END, strings("F"), 7, id);
  g.receive();
  looks(true, "and over");
  g.ask(XS.WATCH, "data", "t".repeat(200));
  for (let i = 0; i < 20; i++) dom0.write(`/local/domain/1/data/${i}`, "");
  looks(false, "events wait for room");
  g.reconnect();
  g.ring.poll();
  looks(true, "connected anew");
});

test("packets larger than the rings pass both ways", () => {
  const g = new GuestRing(new Store({ quota: { nodeBytes: 4096 } })), value = "v".repeat(3000);
  g.send(XS.WRITE, toBytes(`big\0${value}`));
  assert.deepEqual(g.receive().map((p) => p.type), [XS.WRITE]);
  assert.deepEqual(g.ask(XS.READ, "big"), [value]);
});

test("watch events reach the guest without a request, after the replies that came before", () => {
  const g = new GuestRing(), dom0 = new Client(g.store);
  assert.deepEqual(g.ask(XS.WATCH, "control", "tok"), ["OK\0", "control\0tok\0"]);
  dom0.write("/local/domain/1/control/shutdown", "poweroff");
  assert.deepEqual(g.receive().map((p) => [p.type, fromBytes(p.payload)]), [[XS.WATCH_EVENT, "control/shutdown\0tok\0"]]);
});

test("a guest that does not read is held at its requests, and events are not told twice while it has not read", () => {
  const g = new GuestRing(), dom0 = new Client(g.store), request = encodePacket({ type: XS.GET_DOMAIN_PATH, req_id: 7, tx_id: 0, payload: strings("1") });
  g.ask(XS.WATCH, "a", "t");
  for (let i = 0; i < 20_000; i++) {
    g.put(request);
    g.ring.poll();
  }
  assert.ok(g.ring.state.connected && g.ring.state.queuedBytes < 20_000);
  for (let i = 0; i < 1000; i++) dom0.write("/local/domain/1/a", String(i));
  assert.ok(g.ring.state.queuedBytes < 20_000);
  g.ring.close();
});

test("events beyond the bound are lost with a word in the log, and the guest goes on when it reads again", () => {
  const g = new GuestRing(), dom0 = new Client(g.store);
  g.ask(XS.WATCH, "a", "t");
  for (let i = 0; i < 3000; i++) dom0.write(`/local/domain/1/a/${"n".repeat(400)}${i}`, "");
  assert.ok(g.ring.state.connected && g.ring.state.queuedBytes <= 1 << 20);
  assert.equal(g.logged.length, 1);
  assert.match(g.logged[0]!, /^d1 xenstore: \d+ bytes of events were never read, further ones are lost$/);
  while (g.receive().length) g.ring.poll();
  assert.equal(g.ring.state.queuedBytes, 0);
  dom0.write("/local/domain/1/a", "x");
  assert.deepEqual(g.receive().map((p) => fromBytes(p.payload)), ["a\0t\0"]);
});

test("a guest whose events another does not read is held at 20 requests, also when it reconnects, and the reader's room or 20 s let it go on", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const writer = new GuestRing(), reader = new GuestRing(writer.store, 2), quiet = new GuestRing(writer.store, 3);
  new Client(writer.store).setPerms("/local/domain/1", ["r1"]);
  reader.ask(XS.WATCH, "/local/domain/1", "t");
  let nrSent = 0;
  /** Ask for writes of new nodes until no more is answered. @returns how many were */
  const storm = (): number => {
    for (let nr = 0; ; nr++, nrSent++) {
      writer.send(XS.WRITE, toBytes(`n${nrSent % 50}/${"x".repeat(100)}\0${nrSent}`));
      if (writer.receive().length === 0) return nr;
    }
  };
  const first = storm();
  assert.ok(first >= 20 && first < 40, `${first} were answered`);  // a ring's worth went out at once
  const waiting = reader.ring.state.queuedBytes;
  writer.ring.poll();
  assert.equal(reader.ring.state.queuedBytes, waiting, "it is held");
  writer.reconnect();
  writer.send(XS.WRITE, toBytes("again\0x"));
  assert.equal(writer.receive().length, 0, "a new connection does not free it");
  assert.deepEqual(quiet.ask(XS.WRITE, "a"), ["OK\0"], "others are served");
  t.mock.timers.tick(20_000);
  assert.equal(writer.receive().length, 1, "the request that waited");
  nrSent++;
  assert.equal(storm(), 19);
  while (reader.receive().length) reader.ring.poll();
  assert.equal(reader.ring.state.queuedBytes, 0);
  writer.ring.poll();
  assert.equal(writer.receive().length, 1);
  for (const g of [writer, reader, quiet]) g.ring.close();
});

test("requests and replies of every length pass in pieces of one byte, whatever the ring's place", () => {
  const g = new GuestRing(new Store({ quota: { nodeBytes: 4096 } }));
  for (const length of [0, 1, 7, 500, 1007, 1008, 1009, 2500]) {
    const value = "v".repeat(length), request = encodePacket({ type: XS.WRITE, req_id: length, tx_id: 0, payload: toBytes(`k\0${value}`) });
    for (const byte of request) {
      assert.equal(g.put(Uint8Array.of(byte)), 1);
      g.ring.poll();
    }
    assert.deepEqual(g.receive().map((p) => [p.type, p.req_id]), [[XS.WRITE, length]]);
    g.send(XS.READ, strings("k"));
    const packets: Packet[] = [], reader = new PacketReader();
    while (packets.length === 0) {  // take one byte at a time and tell of it
      const cons = g.words[g.at(PAGE.rsp_cons)]!;
      assert.notEqual(g.words[g.at(PAGE.rsp_prod)]!, cons);
      const packet = reader.push(g.bytes.slice(g.page + PAGE.rsp.at + (cons & (RING - 1)), g.page + PAGE.rsp.at + (cons & (RING - 1)) + 1));
      Atomics.store(g.words, g.at(PAGE.rsp_cons), cons + 1);
      g.ring.poll();
      if (packet) packets.push(packet);
    }
    assert.equal(fromBytes(packets[0]!.payload), value);
  }
});

test("broken indexes or an endless packet shut the connection with a sentence, and the guest may ask for a new one", () => {
  const breaks: [number, (g: GuestRing) => void][] = [
    [XENSTORE_ERROR.RINGIDX, (g) => { g.words[g.at(PAGE.req_prod)]! += 5000; }],
    [XENSTORE_ERROR.RINGIDX, (g) => { g.words[g.at(PAGE.rsp_cons)]! += 1; g.put(encodePacket({ type: XS.READ, req_id: 0, tx_id: 0, payload: strings("x") })); }],
    [XENSTORE_ERROR.PROTO, (g) => { g.put(Uint8Array.from([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0])); }],
  ];
  for (const [error, hurt] of breaks) {
    const g = new GuestRing();
    g.ask(XS.WATCH, "a", "t");
    hurt(g);
    g.ring.poll();
    assert.equal(g.ring.state.connected, false);
    assert.equal(g.words[g.at(PAGE.error)], error);
    assert.equal(g.logged.length, 1);
    g.ring.poll();
    assert.equal(g.logged.length, 1);
    g.reconnect();
    assert.deepEqual(g.ask(XS.WATCH, "a", "t"), ["OK\0", "a\0t\0"], "the old watch is gone");
  }
});

test("a guest that fills the ring as fast as it is emptied is served in portions", async () => {
  const g = new GuestRing(), request = encodePacket({ type: XS.READ, req_id: 7, tx_id: 0, payload: strings("a") });
  let nrPut = 0, nrServed = 0;
  const refill = (): void => {
    while (nrPut < 300 && RING - ((g.words[g.at(PAGE.req_prod)]! - g.words[g.at(PAGE.req_cons)]!) >>> 0) >= request.length) {
      g.put(request);
      nrPut++;
    }
  };
  const store = new Store();
  store.serve = () => {
    nrServed++;
    refill();
  };
  const ring = new StoreRing(g.words, g.page, () => {}, store, 1);
  refill();
  ring.poll();
  assert.equal(nrServed, 64);
  while (nrServed < 300) await new Promise((r) => setTimeout(r, 1));
  ring.close();
});

test("a page of random bytes, scribbled over between polls, never throws and never harms another's nodes", () => {
  let seed = 12345;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  for (let round = 0; round < 60; round++) {
    const g = new GuestRing(), dom0 = new Client(g.store);
    dom0.write("/mine", "x");
    for (let i = 0; i < 60; i++) {
      switch (random(6)) {
        case 0: g.words[g.page / 4 + random(1024)] = random(2) ? random(1 << 24) * 256 + random(256) : random(3000); break;
        case 1: for (let j = 0; j < 4096; j++) g.bytes[g.page + j] = random(256); break;
        case 2: for (let j = 0; j < 1024; j++) g.bytes[g.page + j] = random(4) ? 0 : random(24); break;
        case 3: Atomics.add(g.words, g.at(PAGE.req_prod), random(1025)); break;
        case 4: Atomics.store(g.words, g.at(PAGE.rsp_cons), g.words[g.at(PAGE.rsp_prod)]!); break;
        default: g.reconnect(); break;
      }
      g.ring.poll();
      dom0.write("/local/domain/1/a", "");
    }
    assert.equal(dom0.read("/mine"), "x");
    assert.ok(g.logged.length <= 3);
    assert.ok(g.bytes.subarray(0, g.page).every((b) => b === 0) && g.bytes.subarray(g.page + 4096).every((b) => b === 0), "nothing outside the page is written");
    g.ring.close();
  }
});
