import assert from "node:assert/strict";
import test from "node:test";
import { Client } from "./client.ts";
import { type DomainNodes, guestStoreEntries, guestStoreRoots, hostEntries } from "./domain-entries.ts";
import { Store } from "./store.ts";

const GUEST: DomainNodes = {
  domid: 3, uuid: "00000000-0000-4000-8000-000000000003", name: "deb", type: "pvh", targetKiB: 262144, staticMaxKiB: 524288, maxVcpus: 2,
  onlineVcpus: 1, store: { gfn: 0xfeffc, port: 1 }, console: { gfn: 0xfefff, port: 2 }, image: { kernel: "/boot/vmlinuz" }, startedMs: 1500,
};

test("a guest finds what libxl would have written, and may write only what is its own", () => {
  const store = new Store(), dom0 = new Client(store), guest = new Client(store, 3);
  dom0.writeAll(hostEntries());
  dom0.transaction((t) => t.writeAll(guestStoreEntries(GUEST)));
  const read = Object.fromEntries(["name", "domid", "vm", "memory/target", "memory/static-max", "cpu/0/availability", "cpu/1/availability", "store/port", "store/ring-ref",
    "console/port", "console/ring-ref", "console/type", "control/platform-feature-xs_reset_watches"].map((p) => [p, guest.read(p)]));
  assert.deepEqual(read, {
    name: "deb", domid: "3", vm: `/vm/${GUEST.uuid}`, "memory/target": "262144", "memory/static-max": "524288", "cpu/0/availability": "online",
    "cpu/1/availability": "offline", "store/port": "1", "store/ring-ref": "1044476", "console/port": "2", "console/ring-ref": "1044479",
    "console/type": "xenconsoled", "control/platform-feature-xs_reset_watches": "1",
  });
  assert.equal(guest.read(`${guest.read("vm")!}/start_time`), "1.50");
  assert.equal(guest.read(`${guest.read("console/backend")!}/frontend`), "/local/domain/3/console");
  guest.write("control/shutdown", "");
  guest.write("control/feature-poweroff", "1");
  guest.write("data/mine", "x");
  for (const path of ["memory/target", "name", "cpu/0/availability", "console/tty", "new"]) assert.throws(() => guest.write(path, "x"), /EACCES/, path);
  assert.throws(() => guest.read("/libxl/3/type"), /EACCES/);
  assert.throws(() => new Client(store, 4).read("/local/domain/3/name"), /EACCES/);
});

test("the roots of a domain removed, nothing of it is left", () => {
  const store = new Store(), dom0 = new Client(store);
  dom0.writeAll(hostEntries());
  dom0.mkdir("/local/domain/0/backend/console");
  const nrNodes = store.tree.nrNodes;
  dom0.writeAll(guestStoreEntries(GUEST));
  for (const path of guestStoreRoots(GUEST.domid, GUEST.uuid)) dom0.remove(path);
  assert.equal(store.tree.nrNodes, nrNodes);
});
