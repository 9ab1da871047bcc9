/**
 * A domain into a stream, and a domain out of one: xl save and xl restore. The stream is xl's file: its header with the configuration, libxl's stream, libxc's image (src/migration).
 * Whatever goes wrong while a domain is saved, it runs on; what is damaged or too new is refused before anything of it runs.
 */
import { UserError } from "../base/errors.ts";
import { Domain as HvDomain } from "../hypervisor/domain.ts";
import { setGuestState } from "../hypervisor/guest_state.ts";
import { setHvmContext } from "../hypervisor/hvm_context.ts";
import { MachineMemoryExhausted } from "../memory/frames.ts";
import { type About, aboutOf, isOwn, type StorePairs } from "../migration/about.ts";
import { envelopeEnd, envelopeStart, readEnvelopeEnd, readEnvelopeStart } from "../migration/envelope.ts";
import type { StoppedGuest } from "../migration/guest.ts";
import { type Image, ImageReader, writeImageEnd, writeImageStart } from "../migration/image.ts";
import { ownPages, PageWriter } from "../migration/pages.ts";
import { Sink, Source, StreamError } from "../migration/stream.ts";
import { xxh32 } from "../migration/xxh32.ts";
import { domainPath } from "../xenstore/path.ts";
import { goOn, standStill, stoodNs, takeUp } from "./as_it_is.ts";
import { type CheckedConfig, checkConfig, type DomainConfig } from "./config.ts";
import { connectDomain, takeBack, type Undo, uuidBytes, withDomid } from "./create.ts";
import { Domain, partsOf } from "./domain.ts";
import type { Machine } from "./machine.ts";
import { leaving, resumeInPlace, suspendDomain } from "./suspend.ts";

/** How far an action is. */
export type Progress = { readonly phase: "suspend" | "memory" | "round" | "stop" | "devices" | "commit" | "behind"; readonly round?: number; readonly donePages: number; /** of this phase, as far as known */ readonly totalPages: number; readonly bytes: number };
/** What a save came to. */
export type SaveReport = { readonly bytes: number; readonly pages: number; readonly zeroPages: number; /** from the request until the guest had suspended itself, and how long it stood still in all */ readonly suspendMs: number; readonly pausedMs: number; /** it has not suspended itself */ readonly isAsItIs: boolean };
export type SaveOptions = {
  /** goes with the stream, for `open` of restoreDomain */
  readonly configJson: string;
  /** xl save -c: the domain runs on afterwards */
  readonly leaveRunning?: boolean;
  /** xl save -p: it is left paused */
  readonly leavePaused?: boolean;
  /** called when the guest stands still and its disks are flushed: what is done to the disks here (a snapshot) is of the same instant as the memory */
  readonly atInstant?: () => Promise<void>;
  readonly signal?: AbortSignal;
  readonly progress?: (p: Progress) => void;
};

/** What goes into the stream before the pages. @param mayStayAwake the guest need not suspend itself */
export function describeDomain(domain: Domain, configJson: string, migration: string | null, mayStayAwake = false): About {
  const { machine, hv, config, gfns, overheadPages } = partsOf(domain), path = domainPath(domain.domid), kib = (key: string): number => Number(machine.xs.read(`${path}/memory/${key}`) ?? config.memoryMiB * 1024);
  return {
    ...aboutOf(hv), overheadPages, storeGfn: gfns.store, consoleGfn: gfns.console, targetKiB: kib("target"), staticMaxKiB: kib("static-max"), maxmemMiB: config.maxmemMiB,
    configSum: xxh32(new TextEncoder().encode(configJson)), migration, domid: mayStayAwake ? domain.domid : null,
  };
}
/** The guest's own nodes that go with it. */
export function ownNodes(domain: Domain): StorePairs {
  const { machine } = partsOf(domain), base = domainPath(domain.domid), found: [string, string][] = [];
  const walk = (path: string): void => {
    for (const name of machine.xs.list(`${base}/${path}`) ?? []) {
      const below = `${path}/${name}`, value = machine.xs.read(`${base}/${below}`);
      if (value && value.length <= 4096 && isOwn(below)) found.push([below, value]);
      if (path !== "control") walk(below);
    }
  };
  for (const root of ["control", "attr", "data"]) walk(root);
  return found.slice(0, 256);
}

/**
 * Write a domain into `out`, which is closed then; without `leaveRunning` or `leavePaused` the domain is gone afterwards. Its disks are left as the guest wants them: flushed.
 * @throws UserError, the stream's error or the signal's reason; the domain runs on then, and `out` is aborted
 */
export async function saveDomain(domain: Domain, out: WritableStream<Uint8Array>, o: SaveOptions): Promise<SaveReport> {
  try {
    return await leaving(domain, () => saveAlone(domain, out, o));
  } catch (e) {
    if (!out.locked) await out.abort(e).catch(() => {});
    throw e;
  }
}
async function saveAlone(domain: Domain, out: WritableStream<Uint8Array>, o: SaveOptions): Promise<SaveReport> {
  const sink = new Sink(out, Number.POSITIVE_INFINITY, o.signal), { hv, devices } = partsOf(domain), begunMs = performance.now();
  let isStill = false, guest: StoppedGuest | null = null;
  const runOn = (): Promise<void> => (guest ? goOn(domain) : resumeInPlace(domain));
  try {
    o.progress?.({ phase: "suspend", donePages: 0, totalPages: 0, bytes: 0 });
    if (!domain.control.knows("suspend") || devices.obstacle(false) !== null) guest = await standStill(domain, o.signal);
    if (!guest) await suspendDomain(domain, o.signal);
    isStill = true;
    const suspendedMs = performance.now(), totalPages = hv.totPages;
    if (!guest) await devices.hold(false);
    await o.atInstant?.();
    mustBeThere(domain);
    await sink.write(envelopeStart(o.configJson));
    await writeImageStart(sink, hv, describeDomain(domain, o.configJson, null, guest !== null));
    const pages = new PageWriter(hv, sink);
    await pages.write(ownPages(hv), (donePages) => {
      o.progress?.({ phase: "memory", donePages, totalPages, bytes: sink.nrBytes });
      mustBeThere(domain);
    });
    await writeImageEnd(sink, hv, ownNodes(domain), guest);
    mustBeThere(domain);
    await sink.write(envelopeEnd());
    await sink.close();
    mustBeThere(domain);
    if (o.leavePaused) await domain.pause();
    if (o.leaveRunning || o.leavePaused) await runOn();
    else await domain.leave();
    return { bytes: sink.nrBytes, pages: pages.nrPages, zeroPages: pages.nrZeros, suspendMs: suspendedMs - begunMs, pausedMs: performance.now() - suspendedMs, isAsItIs: guest !== null };
  } catch (e) {
    const stuck = isStill && !domain.isGone ? await runOn().then(() => null, (why: Error) => why) : null;
    await sink.abort(e);
    if (stuck) throw new UserError(`${domain.name} cannot be saved: ${(e as Error).message}; and it cannot go on: ${stuck.message}; it stands still`, { cause: stuck });
    if (domain.isGone) await domain.destroy().catch(() => {});       // when we say that it was destroyed, it is
    throw e instanceof UserError || o.signal?.aborted ? e : domain.isGone ? new UserError(`${domain.name} was destroyed while it was saved`, { cause: e }) : new UserError(`${domain.name} cannot be saved: ${(e as Error).message}; it runs on`, { cause: e });
  }
}

/** Of a domain that was destroyed meanwhile nothing more may be read: its p2m and its frames are others' soon. To be asked after all that was waited for. */
export function mustBeThere(domain: Domain): void {
  if (domain.isGone) throw new UserError(`${domain.name} was destroyed meanwhile`);
}

export type RestoreOptions = {
  /** makes the domain's configuration of what was saved with it; disks, interfaces and name may be others. The kernel is for a later start and may be empty */
  open(configJson: string): Promise<DomainConfig>;
  readonly paused?: boolean;
  /** cancels; when the domain is there it means nothing any more */
  readonly signal?: AbortSignal;
  readonly progress?: (p: Progress) => void;
};

/** A domain that is being made from a stream. */
export type Arriving = { readonly hd: HvDomain; readonly about: About; readonly image: Image; readonly undo: Undo };
/** A stream whose beginning has been read: what the domain is, and that the configuration before it is undamaged. */
export type BegunImage = { readonly reader: ImageReader; readonly about: About };
/** Read an image's beginning. @param configJson what the stream began with @throws StreamError */
export async function beginImage(from: Source, configJson: string): Promise<BegunImage> {
  const reader = new ImageReader(from), about = await reader.start();
  if (xxh32(new TextEncoder().encode(configJson)) !== about.configSum) throw new StreamError("The configuration at the stream's beginning is damaged: its checksum is another");
  return { reader, about };
}
/** Read an image into a new domain without anything outside. @param asItIs told where the domain has got the number by which the guest knows itself @throws StreamError, UserError; nothing is left then */
export async function readImage(machine: Machine, { reader, about }: BegunImage, told: (pages: number) => void, asItIs?: () => void): Promise<Arriving> {
  const undo: Undo = [];
  try {
    // more than it may have from now on: a balloon that was asked to grow may not have done so yet
    const isFree = asItIs !== undefined && about.domid !== null && machine.hv.domain(about.domid) === null;
    const hd = HvDomain.create(machine.hv, { ...withDomid(isFree ? about.domid! : machine.freshDomid()), maxVcpus: about.nrVcpus, maxPages: Math.max(about.maxPages, about.maxmemMiB * 256 + about.overheadPages) });
    undo.push(() => hd.destroy());
    if (isFree) asItIs();
    hd.setMemoryMap(about.e820);
    let nrPages = 0;
    const image = await reader.rest(hd, (n) => { nrPages += n; told(nrPages); });
    hd.setMaxPages(about.maxPages);
    if (image.guest && hd.domid !== about.domid) throw new StreamError(`The stream's guest has not suspended itself and knows itself as domain ${about.domid}, which it cannot be here`);
    for (const gfn of [about.storeGfn, about.consoleGfn]) if (hd.p2m.lookup(gfn) === 0) throw new StreamError(`The stream has no page at gfn 0x${gfn.toString(16)}, where the guest has a ring: it is damaged`);
    return { hd, about, image, undo };
  } catch (e) {
    await takeBack(undo);
    if (e instanceof MachineMemoryExhausted) throw new UserError(`The machine has not enough memory left for the domain (${machine.hv.mm.frames.nrFree >>> 8} MiB are free)`, { cause: e });
    throw e;
  }
}
/** Give an arrived domain its registers, store, console and devices. It is paused. @throws UserError with nothing left behind */
export async function connectArrived(machine: Machine, config: CheckedConfig, { hd, about, image, undo }: Arriving): Promise<Domain> {
  try {
    hd.setHandle(uuidBytes(config.uuid));
    machine.cpus.place(hd, config);
    const { guest } = image;
    setHvmContext(hd, image.context, guest ? stoodNs(guest) : 0);
    for (const [index, value] of image.params) hd.setParam(index, value);
    if (guest) setGuestState(hd, guest.state);
    const onlineVcpus = [...hd.vcpus()].filter((v) => v.isUp).length;
    const parts = await connectDomain(machine, config, hd, {
      gfns: { store: about.storeGfn, console: about.consoleGfn }, ...(guest ? { ports: { store: guest.storePort, console: guest.consolePort } } : {}), overheadPages: about.overheadPages, targetKiB: about.targetKiB, staticMaxKiB: about.staticMaxKiB, onlineVcpus,
    }, undo);
    const base = domainPath(hd.domid), { arrival } = image;
    if (arrival) {
      machine.dom0.arrivals.set(hd.domid, arrival);
      // taken back first: a disk's request may wait for a page
      undo.push(() => { arrival.end(); machine.dom0.arrivals.delete(hd.domid); });
    }
    if (guest) {
      await takeUp(parts, guest);
      return new Domain(config, parts);
    }
    machine.xs.transaction((t) => t.writeAll([...hd.vcpus()].map((v) => ({ path: `${base}/cpu/${v.id}/availability`, value: v.isUp ? "online" : "offline" }))));       // not always the first ones
    machine.xs.transaction((t) => { for (const [path, value] of image.pairs) t.writeAll([{ path: `${base}/${path}`, value, perms: [`n${hd.domid}`] }]); });
    return new Domain(config, parts);
  } catch (e) {
    await takeBack(undo);
    throw e instanceof UserError ? new UserError(`${config.name}: ${e.message}`, { cause: e }) : e;
  }
}

/** The configuration of an arriving domain, checked against what it is. */
export function configFor(config: DomainConfig, about: Pick<About, "nrVcpus" | "maxmemMiB">): CheckedConfig {
  return checkConfig({ ...config, vcpus: Math.min(config.vcpus ?? about.nrVcpus, about.nrVcpus), maxvcpus: about.nrVcpus, maxmemMiB: Math.max(config.maxmemMiB ?? 0, about.maxmemMiB) }, { isBuilt: true });
}
/**
 * Build a domain from a stream that saveDomain made, and let it run.
 * @throws UserError (StreamError where the stream is at fault) or the signal's reason, with nothing left behind
 */
export async function restoreDomain(machine: Machine, input: ReadableStream<Uint8Array>, o: RestoreOptions): Promise<Domain> {
  const from = new Source(input);
  try {
    o.signal?.throwIfAborted();
    const configJson = await readEnvelopeStart(from), begun = await beginImage(from, configJson), { domid } = begun.about;
    if (domid !== null && machine.hv.domain(domid) !== null) throw new UserError(`The saved guest does not know how to suspend itself and goes on as domain ${domid}; there is a domain ${domid} here: end that first`);
    const config = await o.open(configJson);
    return await machine.addDomain(config.name, async () => {
      const arriving = await readImage(machine, begun, (donePages) => {
        o.signal?.throwIfAborted();
        o.progress?.({ phase: "memory", donePages, totalPages: begun.about.maxPages, bytes: from.offset });
      }, () => {});
      let checked: CheckedConfig;
      try {
        if (arriving.image.arrival) throw new StreamError("The stream names pages that come later, which only a migration's can: it is damaged");
        await readEnvelopeEnd(from);
        o.signal?.throwIfAborted();
        checked = configFor(config, arriving.about);
      } catch (e) {
        await takeBack(arriving.undo);
        throw e;
      }
      o.progress?.({ phase: "devices", donePages: 0, totalPages: 0, bytes: from.offset });
      return connectArrived(machine, checked, arriving);
    }, o.paused ? { paused: true } : {});
  } finally {
    await from.cancel("read");
  }
}
