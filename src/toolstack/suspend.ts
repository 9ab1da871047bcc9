/**
 * Having a guest suspend itself, and go on where it stands. The guest's part: it takes its front ends down to where they can be built up again and makes SCHEDOP_shutdown
 * with SHUTDOWN_suspend, which returns 0 in a domain built from its image and 1 where nothing came of it (XEN_ELFNOTE_SUSPEND_CANCEL).
 * @see tools/libs/light/libxl_dom_suspend.c domain_suspend_callback_common; docs/misc/xenstore-paths.pandoc "control/shutdown"
 */
import { SHUTDOWN } from "../abi/sched.ts";
import { XenbusState } from "../abi/io/xenbus.ts";
import { UserError } from "../base/errors.ts";
import { domainPath } from "../xenstore/path.ts";
import { gprAt, RAX } from "../x86/state.ts";
import { type Domain, partsOf } from "./domain.ts";

/** How long the guest has to take the request up, and then to follow it. libxl has 60 s for each. */
const TAKE_MS = 60_000, FOLLOW_MS = 60_000;
/** How often a request that is not taken up is made again: Linux drops one that comes while it still comes to from the last suspend (drivers/xen/manage.c, shutting_down). */
const AGAIN_MS = 500;
/**
 * How long after its start a domain's disks and interfaces are waited for. A Linux whose blkfront has not connected again since the last suspend does not outlive the next one: it takes the disk for a
 * new one then (xen-blkfront.c, BUG_ON(info->gd != NULL)). A guest that has no driver for a device never connects it.
 */
const CONNECT_MS = 60_000, LOOK_MS = 10;

/** Does somebody wait for the guest's suspending itself, or bring it back from there? A request that it took up and never followed does not count: the next takes its place. */
const isAwaited = (domain: Domain): boolean => domain.suspension !== null && (!domain.suspension.isLate || partsOf(domain).hv.end?.code === SHUTDOWN.suspend);
/** One way out at a time: there is one log of what a domain writes, in which each page is told once, and it goes with the devices that it began with. @throws UserError where it is on one */
export async function leaving<T>(domain: Domain, go: () => Promise<T>): Promise<T> {
  if (domain.isLeaving || isAwaited(domain)) throw new UserError(`${domain.name} is being saved or moved already`);
  const { control } = partsOf(domain);
  domain.isLeaving = control.isFixed = true;
  try { return await go(); } finally { domain.isLeaving = control.isFixed = domain.isInDoubt; }
}
/** Make the suspend hypercall return "cancelled" and let the domain run on. Its devices, if they were held, are taken up first. */
export async function resumeInPlace(domain: Domain): Promise<void> {
  const { hv, devices } = partsOf(domain);
  await devices.goOn();
  if (domain.isGone) return;        // its registers are somebody else's memory
  const v = hv.vcpu(0)!;
  v.setContext((dv, at) => dv.setBigUint64(at + gprAt(RAX), 1n, true), false);
  domain.suspension = null;
  hv.resume();
}

/** @throws UserError for a domain whose memory is partly still elsewhere */
export function mustBeWhole(domain: Domain, what: string): void {
  if (domain.rest) throw new UserError(`${domain.name} has just come here, and ${Math.ceil(domain.rest.nrLeft / 256)} MiB of its memory are still on their way; it can be ${what} when they are here`);
}
/** @param isAsItIs it is not asked to suspend itself, or may not be @throws UserError for a domain that does not run, or is about to end, or has a device that stays */
export function mayGo(domain: Domain, isAsItIs = true): void {
  if (partsOf(domain).hv.end) throw new UserError(`${domain.name} has shut down; only a running domain can be saved or moved`);
  mustBeWhole(domain, "saved or moved");
  if (domain.isPaused) throw new UserError(`${domain.name} is paused and cannot suspend itself; unpause it first`);
  if (domain.control.shutdownAsked) throw new UserError(`${domain.name} has been asked to go down ("${domain.control.shutdownAsked}") and has not answered yet`);
  const why = domain.devices.obstacle(isAsItIs);
  if (why !== null) throw new UserError(`${domain.name} cannot be saved or moved: ${why}`);
}
/**
 * Ask the guest and wait until it has suspended itself and no vCPU runs.
 * @throws UserError when it cannot or does not; the domain runs on then, also where it follows too late
 */
export async function suspendDomain(domain: Domain, signal?: AbortSignal): Promise<void> {
  const { hv, machine: { xs } } = partsOf(domain), request = `${domainPath(domain.domid)}/control/shutdown`;
  signal?.throwIfAborted();
  if (isAwaited(domain)) throw new UserError(`${domain.name} is being saved or moved already`);
  mayGo(domain, false);
  const before = domain.suspension;        // of an earlier request: who follows that now goes on at once
  domain.suspension ??= { told: () => {} };
  try {
    await connected(domain, signal);
  } catch (e) {
    domain.suspension = before;
    throw e;
  }
  if (before && hv.end) throw new UserError(`${domain.name} follows an earlier request to suspend itself, and goes on from that first; try again`);
  const done = Promise.withResolvers<"suspended" | "ended" | "late">(), { promise: aborted, reject: abort } = Promise.withResolvers<never>();
  aborted.catch(() => {});
  domain.suspension = { told: () => done.resolve("suspended") };
  void domain.wait().then(() => done.resolve("ended"), (e) => abort(e));
  const onAbort = (): void => abort(signal!.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = (ms: number): void => { timer = setTimeout(() => done.resolve("late"), ms); };
  using _watch = xs.watch(request, () => {
    if (!domain.control.isShutdownTaken || timer === undefined) return;
    clearTimeout(timer);
    late(FOLLOW_MS);
  });
  late(TAKE_MS);
  xs.write(request, "suspend");
  const again = setInterval(() => { if (xs.read(request) === "suspend") xs.write(request, "suspend"); }, AGAIN_MS);
  let how: "suspended" | "ended" | "late" | null = null;
  try {
    how = await Promise.race([done.promise, aborted]);
  } finally {
    clearTimeout(timer);
    timer = undefined;        // the watch hears what is written below
    clearInterval(again);
    signal?.removeEventListener("abort", onAbort);
    if (how === "ended") domain.suspension = null;
    else if (how === "suspended") {
      if (xs.read(request) === "suspend") xs.write(request, "");        // it has followed an earlier one, and is not to follow this one too
    } else {
      // not taken up: it is taken back; taken up: who comes late goes on at once
      domain.suspension = { isLate: true, told: () => { void quiet(domain).then(() => resumeInPlace(domain)).catch((e: unknown) => { if (!domain.isGone) partsOf(domain).machine.log(`${domain.name} suspended itself late and cannot go on: ${(e as Error).message}`); }); } };
      if (xs.read(request) === "suspend") {
        xs.write(request, "");
        if (!before) domain.suspension = null;
      } else if (hv.end) domain.suspension.told();
    }
  }
  if (how === "ended") throw new UserError(`${domain.name} ended before it had suspended itself`);
  if (how === "late") throw new UserError(`${domain.name} did not suspend itself within ${(TAKE_MS + FOLLOW_MS) / 1000} s; it runs on. Does its kernel know Xen's suspend (Linux: CONFIG_XEN_SAVE_RESTORE)?`);
  await quiet(domain);
}
/** Until all front ends are connected that will be. */
async function connected(domain: Domain, signal: AbortSignal | undefined): Promise<void> {
  while (domain.aliveMs < CONNECT_MS && !partsOf(domain).hv.end && ["vbd", "vif"].some((kind) => domain.devices.list(kind).some(({ state }) => state !== XenbusState.Connected))) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    signal?.throwIfAborted();
  }
}
/** Until no vCPU is on a pCPU. @throws UserError when it is destroyed meanwhile */
async function quiet(domain: Domain): Promise<void> {
  const { hv } = partsOf(domain);
  for (;;) {
    if (domain.isGone) throw new UserError(`${domain.name} was destroyed meanwhile`);
    if (hv.isQuiet) return;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
