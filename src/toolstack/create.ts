/** Building a domain, in libxl's order: plan the image, make the domain, give it memory, write the image, connect store and console, set its registers. */
import { HVM_PARAM } from "../abi/hvm/params.ts";
import { UserError } from "../base/errors.ts";
import { planPvh, type PvhPlan, writePvh } from "../builder/load.ts";
import type { ConsoleViews } from "../drivers/console/views.ts";
import { consoleStreams } from "../drivers/console/streams.ts";
import { pvhContext } from "../hypervisor/context.ts";
import { Domain as HvDomain } from "../hypervisor/domain.ts";
import { MachineMemoryExhausted } from "../memory/frames.ts";
import { guestStoreEntries, guestStoreRoots } from "../xenstore/domain-entries.ts";
import { StoreRing } from "../xenstore/ring.ts";
import { attachDisk } from "./block.ts";
import { attachChannel } from "./channel.ts";
import type { CheckedConfig, DiskConfig, VifConfig } from "./config.ts";
import { Control } from "./control.ts";
import { Devices } from "./devices.ts";
import { Domain, type DomainParts, type RingPair } from "./domain.ts";
import { attachVif } from "./vif.ts";
import { attachShare } from "./share.ts";
import { KernelFrames } from "./kernel-frames.ts";
import type { Machine } from "./machine.ts";

/** What a domain costs the machine beyond its memory: p2m, ACPI and special pages, event channels, grant frames; generously. */
export const DOMAIN_OVERHEAD_MIB = 8;

type Planned = { readonly key: string; readonly plan: Promise<PvhPlan>; /** where its kernel is, if that is machine memory */ readonly frames: KernelFrames | null; /** domains that are being built from it */ nrUsers: number };
const plans = new WeakMap<Uint8Array, Planned>();

/**
 * Check a domain's image and lay it out, without a machine. Kept until the domain is built from it: a plan holds the unpacked kernel (64 MiB for Debian's), which is given back
 * then, at once; the main thread of an idle machine makes no garbage, so a collector would not come by. A restart plans anew.
 * @param within the machine that the domain will certainly be built in: the kernel is unpacked into its memory, where there is room, and given back by being built from
 * @throws UserError
 */
export const planDomain = (config: CheckedConfig, within: Machine | null = null): Promise<PvhPlan> => planned(config, within).plan;
function planned(config: CheckedConfig, within: Machine | null): Planned {
  const key = JSON.stringify([config.memoryMiB, config.maxvcpus, config.cmdline, config.ramdisk?.length ?? -1]);
  const known = plans.get(config.kernel);
  if (known?.key === key) return known;
  const frames = within && new KernelFrames(within.hv.mm), plan = (async () => planPvh({
    kernel: { name: config.kernelName, bytes: config.kernel }, ramdisks: config.ramdisk ? [{ name: config.ramdiskName, bytes: config.ramdisk }] : [],
    cmdline: config.cmdline, memoryBytes: config.memoryMiB * 2 ** 20, nrVcpus: config.maxvcpus, place: frames?.place,
  }))();
  plan.catch(() => frames?.release());
  const made = { key, plan, frames, nrUsers: 0 };
  plans.set(config.kernel, made);
  return made;
}
/** One domain less is built from it. */
function letGo(config: CheckedConfig, used: Planned, plan: PvhPlan): void {
  if (plans.get(config.kernel) === used) plans.delete(config.kernel);
  if (--used.nrUsers > 0) return;
  used.frames?.release();
  if (plan.kernel.unpacked instanceof ArrayBuffer && plan.kernel.unpacked.byteLength) plan.kernel.unpacked.transfer(0);
}

/** Sixteen bytes of a UUID's text. */
export const uuidBytes = (uuid: string): Uint8Array => Uint8Array.from(uuid.replaceAll("-", "").match(/../g)!, (h) => Number.parseInt(h, 16));

/** Puts what a guest writes to its debug console together to lines that cannot command a terminal; Xen's own console prints them so too. */
function debugLines(told: (line: string) => void): (bytes: Uint8Array) => void {
  let held = "";
  return (bytes) => {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
    const lines = (held + String.fromCharCode(...bytes)).replace(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/g, "").split("\n");
    held = lines.pop()!.slice(-1024);
    for (const line of lines) told(line);
  };
}

/** The option of a number, where there is to be one. */
export const withDomid = (domid: number | undefined): { readonly domid?: number } => (domid === undefined ? {} : { domid });

/** Build a domain, paused. @throws UserError with nothing left behind */
export async function buildDomain(machine: Machine, config: CheckedConfig): Promise<Domain> {
  const used = planned(config, machine), { hv } = machine;
  used.nrUsers++;       // before anything is waited for: another domain may be built from it meanwhile
  const plan = await used.plan.catch((e) => {
    used.nrUsers--;
    throw e;
  });
  let holdsPlan = true;
  const dropPlan = (): void => {
    if (holdsPlan) letGo(config, used, plan);
    holdsPlan = false;
  };
  const nrPages = plan.populate.reduce((sum, r) => sum + r.count, 0);
  const undo: Undo = [];
  try {
    const maxPages = nrPages + (config.maxmemMiB - config.memoryMiB) * 256;
    const hd = HvDomain.create(hv, { ...withDomid(machine.freshDomid()), maxVcpus: config.maxvcpus, maxPages, handle: uuidBytes(config.uuid) });
    undo.push(() => hd.destroy());
    machine.cpus.place(hd, config);
    hd.setMemoryMap(plan.e820);
    const frames = used.nrUsers === 1 ? used.frames : null;        // else somebody will still read what is there; until the plan is let go of, nobody else comes between
    const { populate, writes } = frames?.give(plan, hd) ?? plan;
    for (const { gfn, count } of populate) hd.populate(gfn, count);
    writePvh({ ...plan, writes }, { write: (gpa, bytes) => hd.memory.write(gpa, bytes) });
    dropPlan();

    const parts = await connectDomain(machine, config, hd, {
      gfns: { store: plan.storeGfn, console: plan.consoleGfn }, overheadPages: nrPages - config.memoryMiB * 256, targetKiB: config.memoryMiB * 1024, staticMaxKiB: config.memoryMiB * 1024,
      onlineVcpus: config.vcpus,
    }, undo);
    hd.vcpu(0)!.setContext(pvhContext(plan.entry, plan.startInfoGpa));
    return new Domain(config, parts);
  } catch (e) {
    dropPlan();
    await takeBack(undo);
    if (e instanceof MachineMemoryExhausted) throw new UserError(`${config.name}: The machine has no ${config.memoryMiB} MiB left (${hv.mm.frames.nrFree >>> 8} MiB are free)`, { cause: e });
    throw e instanceof UserError ? new UserError(`${config.name}: ${e.message}`, { cause: e }) : e;
  }
}

/** What a domain's making has found out about it. */
export type Made = { readonly gfns: RingPair; /** where the guest has them already */ readonly ports?: RingPair; readonly overheadPages: number; readonly targetKiB: number; /** what its memory map covers */ readonly staticMaxKiB: number; readonly onlineVcpus: number };
/** Steps that take back what was done, last first. */
export type Undo = (() => void | Promise<void>)[];
/** Give a domain that has its memory what it has outside: store, console, disks, networks. Its end is in `undo`, whatever happens. */
export async function connectDomain(machine: Machine, config: CheckedConfig, hd: HvDomain, made: Made, undo: Undo): Promise<DomainParts> {
  const { hv, dom0, store, xs } = machine;
  let isMuted = false;
  /** One of the guest's ring pages with its port, as dom0 sees them. */
  const connect = (gfn: number, known?: number): { page: number; port: number; notify: () => void; onEvent: (told: () => void) => void } => {
    const page = dom0.mapGfn(hd, gfn);
    undo.push(() => dom0.unmap(page));
    const port = known ?? dom0.allocUnbound(hd.domid), local = dom0.bind(hd.domid, port);
    undo.push(() => dom0.closePort(local));
    return { page, port, notify: () => { if (!isMuted) dom0.notify(local); }, onEvent: (told) => dom0.onEvent(local, told) };
  };
  const storeEnd = connect(made.gfns.store, made.ports?.store), consoleEnd = connect(made.gfns.console, made.ports?.console);
  hd.setParam(HVM_PARAM.STORE_PFN, BigInt(made.gfns.store));
  hd.setParam(HVM_PARAM.STORE_EVTCHN, BigInt(storeEnd.port));
  hd.setParam(HVM_PARAM.CONSOLE_PFN, BigInt(made.gfns.console));
  hd.setParam(HVM_PARAM.CONSOLE_EVTCHN, BigInt(consoleEnd.port));

  // static-max is what the memory map covers: Linux takes the difference to it off every target (xen-balloon.c). It grows beyond by memory hot plug.
  const entries = guestStoreEntries({
    domid: hd.domid, uuid: config.uuid, name: config.name, type: "pvh", targetKiB: made.targetKiB, staticMaxKiB: made.staticMaxKiB,
    maxVcpus: hd.nrVcpus, onlineVcpus: made.onlineVcpus, store: { gfn: made.gfns.store, port: storeEnd.port }, console: { gfn: made.gfns.console, port: consoleEnd.port },
    image: { cmdline: config.cmdline }, startedMs: Date.now(),
  });
  xs.transaction((t) => t.writeAll(entries));
  undo.push(() => { for (const path of guestStoreRoots(hd.domid, config.uuid)) xs.remove(path); });
  const ring = new StoreRing(hv.views.i32, storeEnd.page, storeEnd.notify, store, hd.domid, machine.log);
  storeEnd.onEvent(() => ring.poll());
  store.introduce(hd.domid);
  undo.push(() => { ring.close(); store.release(hd.domid); });
  const streams = consoleStreams(hv.views.i32, consoleEnd.page, consoleEnd.notify, { name: `d${hd.domid} console`, log: machine.log });
  consoleEnd.onEvent(() => streams.back.poll());
  undo.push(() => streams.close());

  const mute = (on: boolean): void => {
    isMuted = on;
    ring.freeze(on);
    if (on) return;
    for (const { notify } of [storeEnd, consoleEnd]) notify();        // of what came meanwhile, or was on its way elsewhere
    streams.back.poll();
  };

  const devices = new Devices(xs, hd.domid, machine.log);
  undo.push(() => devices.close());
  const plugDisk = (disk: DiskConfig): void => attachDisk(devices, dom0, hd.domid, disk, machine.log);
  let lastVif: Promise<unknown> = Promise.resolve();
  const plugVif = (vif: VifConfig): Promise<number> => {      // one after the other: a number is taken when the interface is there
    const plugged = lastVif.then(async () => {
      const devid = vif.devid ?? devices.freeDevid("vif");
      await attachVif(devices, machine.networks, dom0, hd.domid, devid, vif, machine.log);
      return devid;
    });
    lastVif = plugged.catch(() => {});
    return plugged;
  };
  for (const disk of config.disks) plugDisk(disk);
  for (const vif of config.vifs) await plugVif(vif);
  for (const [i, share] of config.shares.entries()) await attachShare(devices, dom0, hd.domid, i, share, machine.log);
  const channels = new Map<string, ConsoleViews>();
  for (const [i, name] of config.channels.entries()) channels.set(name, attachChannel(devices, dom0, hd.domid, i + 1, name, machine.log));

  dom0.onDebugConsole(hd.domid, debugLines((line) => machine.log(`(d${hd.domid}) ${line}`)));

  return {
    machine, hv: hd, config, gfns: made.gfns, ports: { store: storeEnd.port, console: consoleEnd.port }, storeRing: ring, mute, overheadPages: made.overheadPages, streams, devices, channels, attachDisk: plugDisk, attachVif: plugVif, shutDown: () => store.domainChanged(hd.domid),
    control: new Control(xs, hd.domid, config.maxmemMiB, (nr) => hd.setMaxPages(nr + made.overheadPages)), release: () => takeBack(undo),
  };
}
/** Take all steps back. */
export async function takeBack(undo: Undo): Promise<void> { for (let step = undo.pop(); step; step = undo.pop()) await step(); }
