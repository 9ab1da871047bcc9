/** A machine's bridges to those who ask: what they are, and what passes them. */
import type { Duplex } from "node:stream";
import type { Result } from "../../api/actions.ts";
import { ApiFault } from "../../api/fault.ts";
import type { StreamOpener } from "../../api/serve.node.ts";
import type { Bridge } from "../../network/bridge.ts";
import { capture, type CaptureSink } from "../../network/capture.ts";
import { parseFilter } from "../../network/capture-filter.ts";
import type { Machine } from "../../toolstack/machine.ts";

/** All bridges. */
export const bridgeList = (machine: Machine): Result<"net.list"> => machine.networks.describe().map(({ bridge: { name, mtuBytes, ports } }) => ({
  name, mtuBytes, ports: ports.map(({ name, peer, vlan, isolated, rate, state, macs, counters: { dropped, ...counted } }) => ({
    name, peer, vlan, isIsolated: isolated, rate, state, macs: macs.map((m) => m.mac), ...counted, dropped: Object.values(dropped).reduce((a, b) => a + b, 0),
  })),
}));

/** The bridge of that name, and which of its interfaces are meant: all, or the one of a port of that name. */
function place(machine: Machine, on: string): { bridge: Bridge; isMeant(interfaceName: string): boolean } {
  const bridge = machine.networks.find(on);
  if (bridge) return { bridge, isMeant: () => true };
  const all = machine.networks.describe(), its = all.find((b) => b.bridge.ports.some((p) => p.name === on)), found = its && machine.networks.find(its.bridge.name);
  if (found) return { bridge: found, isMeant: (name) => name === on };
  const names = all.flatMap(({ bridge: b }) => [b.name, ...b.ports.map((p) => p.name)]);
  throw new ApiFault("notfound", `There is no bridge and no port "${on}"; ${names.length ? `there are ${names.join(", ")}` : "bridges come with the first interface that names them"}`);
}

/** Write what passes to the connection until it ends. A port's own frames are those it gives to the bridge; what it is given entered elsewhere and stands there. */
export const captureStream = (machine: Machine): StreamOpener => async (params) => {
  const { on, filter: words, snapLenBytes } = params as { on: string; filter?: string; snapLenBytes?: number }, { bridge, isMeant } = place(machine, on), wanted = words === undefined ? null : parseFilter(words);
  return { take: (connection: Duplex) => {
    const sink: CaptureSink = {
      write: (bytes) => new Promise((done, failed) => { connection.write(bytes, (e) => { if (e) failed(e); else done(); }); }),
      close: async () => { connection.end(); },
    };
    const made = capture(bridge, sink, { filter: (frame, name) => isMeant(name) && (wanted?.(frame) ?? true), ...(snapLenBytes === undefined ? {} : { snapLenBytes }) });
    connection.on("error", () => {});
    connection.on("close", () => { void made.stop(); });
    connection.on("end", () => { void made.stop(); });       // whoever listens has heard enough, and gets the statistics
    connection.resume();
  } };
};
