/**
 * Moving a guest that is not asked: it is stopped between two instructions, and goes on at the other end with its ports, grants, rings and watches as they were. It has to be the same domain
 * to itself there, number and all. Where that cannot be had (the number is taken, something is under way that cannot be taken along) the guest suspends itself, see suspend.ts.
 * @see docs/designs/non-cooperative-migration.md of Xen's source
 */
import { EVTCHNSTAT } from "../abi/event_channel.ts";
import { XS } from "../abi/io/xs_wire.ts";
import { XenbusState } from "../abi/io/xenbus.ts";
import { UserError } from "../base/errors.ts";
import { pause } from "../base/wait.ts";
import { guestState, NotAsItIs } from "../hypervisor/guest_state.ts";
import type { Guest, GuestNode, StoppedGuest } from "../migration/guest.ts";
import { domainPath } from "../xenstore/path.ts";
import { printPerm } from "../xenstore/perms.ts";
import type { Store } from "../xenstore/store.ts";
import { fromBytes, parseStrings, strings, toBytes } from "../xenstore/wire.ts";
import { type Domain, type DomainParts, partsOf } from "./domain.ts";
import { mayGo } from "./suspend.ts";

/** Something is nearly always under way for a moment: how often and how long apart it is tried. */
const TRIES = 60, TRY_MS = 5;
/** The clocks of two hosts tell how long the guest stood still; not if they differ by more. */
const STOOD_MS = 10_000;
/** Nodes in the guest's folder that are the toolstack's word, here as there. */
const OURS = new Set(["vm", "name"]);

/**
 * Stop the domain where it is and have its back ends let go of its rings.
 * @returns what goes along; null where it cannot go as it is: it runs on
 * @throws UserError where it cannot go at all; what a disk has to say
 */
export async function standStill(domain: Domain, signal: AbortSignal | undefined): Promise<StoppedGuest | null> {
  const { hv, devices, storeRing, machine, mute } = partsOf(domain);
  for (let tries = 0; tries < TRIES; tries++) {
    signal?.throwIfAborted();
    mayGo(domain);
    if (domain.suspension !== null) return null;        // it may be about to follow an earlier request
    await hv.pause();
    await hv.settle();
    if (!hv.end && !domain.isGone && storeRing.isStill && devices.isSteady) {
      try {
        mute(true);        // pages are copied one after the other, and an event is in several
        await devices.hold(true);
        if (domain.isGone) throw new UserError(`${domain.name} was destroyed meanwhile`);
        if (devices.list("vbd").some(({ nrStuck }) => nrStuck !== 0)) throw new UserError("A disk does not answer");
        if (storeRing.isStill) return guestOf(domain);
      } catch (e) {
        await goOn(domain);
        if (!(e instanceof NotAsItIs)) throw e;
        machine.log(`${domain.name}: ${e.message}; it is asked to suspend itself`);
        return null;
      }
      await goOn(domain);
    } else if (!domain.isGone) hv.unpause();
    await pause(TRY_MS, signal);
  }
  return null;
}
/** After `standStill`: it runs on here. */
export async function goOn(domain: Domain): Promise<void> {
  const { hv, devices, mute } = partsOf(domain);
  await devices.goOn();
  if (domain.isGone) return;
  mute(false);
  hv.unpause();
}

/** What goes along. @throws NotAsItIs where it cannot */
export function guestOf(domain: Domain): StoppedGuest {
  const { hv, machine: { store }, ports } = partsOf(domain), connection = store.connectionOf(domain.domid), state = guestState(hv);
  if (!connection) throw new NotAsItIs("it has broken its connection to the store");
  for (const port of [ports.store, ports.console]) if (!state.ports.some((p) => p.port === port && p.state === EVTCHNSTAT.unbound)) throw new NotAsItIs(`it has closed its port ${port}, of the store or the console`);
  return {
    state, storePort: ports.store, consolePort: ports.console, nodes: nodesOf(store, domain.domid),
    watches: store.watches.ownedBy(connection).map((w) => ({ path: w.path.slice(w.prefix.length), token: w.token, depth: w.depth ?? null })),
  };
}
/** A domain's folder, parents first. What another domain than itself and domain 0 may do there is not said: the number is somebody else's elsewhere. */
export function nodesOf({ tree }: Store, domid: number): GuestNode[] {
  const base = domainPath(domid), found: GuestNode[] = [];
  const walk = (path: string): void => {
    const node = tree.get(path === "" ? base : `${base}/${path}`);
    if (!node) return;
    found.push({ path, value: fromBytes(node.value), perms: node.perms.flatMap((p, i) => (p.domid === 0 || p.domid === domid ? [printPerm(p)] : i === 0 ? [`n${domid}`] : [])) });
    for (const name of node.children) walk(path === "" ? name : `${path}/${name}`);
  };
  walk("");
  return found;
}

/** How long a guest has stood still, in ns, by this host's clock. */
export function stoodNs({ wallMs }: Guest): number {
  const ms = Date.now() - wallMs;
  return ms >= 0 && ms <= STOOD_MS ? Math.round(ms * 1e6) : 0;
}
/** Give a domain that has its memory, its state and its devices the guest's own words in the store, and have the back ends take up its rings. @throws UserError */
export async function takeUp({ hv, machine: { xs, store }, devices, mute }: DomainParts, guest: Guest): Promise<void> {
  const { domid } = hv, base = domainPath(domid), theirs = new Map(guest.nodes.map((node) => [node.path, node])), ours = new Map(nodesOf(store, domid).map((node) => [node.path, node]));
  xs.transaction((t) => {
    for (const path of [...ours.keys()].reverse()) if (!theirs.has(path)) t.remove(`${base}/${path}`);
    for (const { path, value, perms } of theirs.values()) {
      const here = ours.get(path), at = path === "" ? base : `${base}/${path}`;
      if (OURS.has(path)) continue;
      if (!perms.every((p) => p.slice(1) === "0" || p.slice(1) === String(domid))) throw new UserError(`The guest's node "${path.slice(0, 64)}" is not its own (${perms.join()}); the stream is damaged`);
      if (here?.value !== value) t.write(at, toBytes(value));
      if (here?.perms.join() !== perms.join()) t.setPerms(at, perms);
    }
  });
  await devices.settled();
  for (const path of theirs.keys()) {
    const [, kind, devid] = /^device\/(\w+)\/(\d+)\/state$/.exec(path) ?? [];
    if (kind === undefined || theirs.get(path)!.value !== String(XenbusState.Connected)) continue;
    const back = devices.list(kind).find((d) => d.devid === Number(devid));
    if (back?.state !== XenbusState.Connected) throw new UserError(`The guest uses its ${kind} ${devid}, which ${back ? "cannot be connected" : "is not in the configuration"} here`);
  }
  const connection = store.connectionOf(domid)!;
  for (const { path, token, depth } of guest.watches) {
    // what has changed since, it will hear; the first event of a watch it has had
    const { reply } = store.request(connection, { type: XS.WATCH, req_id: 0, tx_id: 0, payload: depth === null ? strings(path, token) : strings(path, token, String(depth)) });
    if (reply.type === XS.ERROR) throw new UserError(`The guest's watch on "${path.slice(0, 64)}" cannot be had here (${parseStrings(reply.payload, 1, 1)[0]})`);
  }
  mute(false);
}
