/**
 * A running domain to another machine. The stream is the one of save.ts, with what was written meanwhile sent again until little is left; then the guest stands still, what is left
 * goes, and the other end starts it. Who has it when something dies is src/migration/commit.ts's business. By post-copy what is left, if it is much, goes behind the guest (rest.ts).
 */
import { UserError } from "../base/errors.ts";
import { pause, unlessAborted } from "../base/wait.ts";
import { countDirtyFrames, emptyTlbs, pinnedFrames, startDirtyLog, stopDirtyLog, takeDirtyFrames } from "../hypervisor/dirty_log.ts";
import type { Arrival } from "../hypervisor/arrival.ts";
import { grantedGfn } from "../hypervisor/grant_table.ts";
import { NotAsItIs } from "../hypervisor/guest_state.ts";
import { codeHeats } from "../hypervisor/warm.ts";
import { envelopeEnd, envelopeStart, readEnvelopeEnd, readEnvelopeStart } from "../migration/envelope.ts";
import { receiverStep, type ReceiverEvent, type ReceiverState, senderStep, type SenderEvent, type SenderState, type Standing } from "../migration/commit.ts";
import { writeAwaited } from "../migration/late.ts";
import type { StoppedGuest } from "../migration/guest.ts";
import { writeCodePlaces, writeImageEnd, writeImageStart } from "../migration/image.ts";
import { DEFLATE_BELOW_BYTES_PER_SECOND } from "../migration/deflated.ts";
import { messageBytes, readMessage } from "../migration/messages.ts";
import { ownPages, type Page, PageWriter } from "../migration/pages.ts";
import { Sink, Source } from "../migration/stream.ts";
import { goOn, guestOf, nodesOf, standStill } from "./as_it_is.ts";
import { takeBack } from "./create.ts";
import type { DomainConfig } from "./config.ts";
import { type Domain, partsOf } from "./domain.ts";
import type { Machine } from "./machine.ts";
import { type Link, Rest, restOf, sendRest, type SendRestOptions } from "./rest.ts";
export type { Link } from "./rest.ts";
import { beginImage, configFor, connectArrived, describeDomain, mustBeThere, ownNodes, type Progress, readImage } from "./save.ts";
import { leaving, mayGo, resumeInPlace, suspendDomain } from "./suspend.ts";

/** Where the ends write down who has the guest, so that it stands after their own death. Awaited before what follows from it is done. */
export type Journal = { note(migration: string, standing: Standing): void | Promise<void> };
export type SendOptions = {
  readonly configJson: string;
  /** send while it runs, and again what it wrote; else it stands still from the start */
  readonly live: boolean;
  /** have the guest suspend itself even where it could come as it is (as_it_is.ts) */
  readonly suspends?: boolean;
  /** where rounds do not help, let the guest run at the other end before all of its memory is there: with `live` */
  readonly postcopy?: boolean;
  /** makes another link for the rest of the memory, see SendRestOptions */
  readonly relink?: SendRestOptions["relink"];
  readonly maxBytesPerSecond?: number;
  /** make pages smaller, which Xen's own tools do not understand; default: where maxBytesPerSecond is less than 24 MiB */
  readonly deflates?: boolean;
  /** the standstill for the last pages that is aimed at, default 20 */
  readonly downtimeMs?: number;
  readonly maxRounds?: number;
  /** for disks that only one side may have open: let go of them when the guest stands still and all is flushed; take them back where it goes on here */
  readonly handOver?: { release(): Promise<void>; retake(): Promise<void> };
  readonly journal?: Journal;
  /** cancels, until the guest is given away */
  readonly signal?: AbortSignal;
  readonly progress?: (p: Progress) => void;
};
export type Round = { readonly pages: number; readonly bytes: number; readonly ms: number };
/** How it went. `suspendMs`: until it stood still; `downtimeMs`: from its standstill until the other end said that it runs; `latePages`: that went behind it by post-copy, in `lateMs`. */
export type MigrateReport = { readonly latePages: number; readonly lateMs: number; readonly migration: string; readonly bytes: number; readonly pages: number; readonly zeroPages: number; readonly rounds: readonly Round[]; readonly totalMs: number; /** it has not suspended itself */ readonly isAsItIs: boolean; readonly suspendMs: number; readonly downtimeMs: number };
export type ReceiveOptions = {
  /** Called when the stream begins, while the guest runs on at the other end: what can be looked at and made ready is, and a refusal costs the guest nothing. */
  prepare?(configJson: string): Promise<void>;
  /** as for restoreDomain; called when all is here and the sender's disks are flushed and let go of */
  open(configJson: string): Promise<DomainConfig>;
  /** how long another link is waited for (`receiveRest`) when one broke on which memory followed the domain; default: not at all */
  readonly relinkMs?: number;
  readonly journal?: Journal;
  /** cancels, until all is here */
  readonly signal?: AbortSignal;
  readonly progress?: (p: Progress) => void;
};

const DOWNTIME_MS = 20, MAX_ROUNDS = 30, BATCH = 256, MAX_TIMES = 4;
/** How long the other end, whose engine may be new, takes to decode a place of code, and how long it is given for all: decoding goes on beside the guest, but the guest is the slower for it. */
const DECODE_MS = { aPlace: 0.015, most: 500 } as const;
/** What a connection says whose other end has gone. */
const BROKEN = /^(?:write|read) E(?:PIPE|CONNRESET)$/;
/** How long the other end is given to make ready when it has all, while the guest stands still. */
const READY_MS = 60_000;
/** How long a sender is listened to that has been told why its domain is not taken, and may be in the middle of a write. */
const LINGER_MS = 2000;
/** How front ends call the grants of their rings. */
const RING_REF = /^device\/.*ring-ref\d*$/;
/** Rounds that leave nearly as much as the one before, until it is given up to be faster than the guest. */
const STUBBORN = 3;

/** This end does not know who has the guest: the link broke between "it is yours" and "it runs". Here it stands still until `settle` is told what the other end says of itself. */
export class MigrationInDoubt extends UserError {
  override name = "MigrationInDoubt";
  readonly migration: string;
  /** Tell it the other end's standing (`standingOf` there, or its journal's after its death). @returns the domain where it runs here now; null where it is the other's; undefined: still in doubt */
  readonly settle: (standing: Standing) => Promise<Domain | null | undefined>;
  constructor(what: string, migration: string, settle: MigrationInDoubt["settle"]) {
    super(`${what}: the link broke while it was handed over; it stands still here until the other end is asked (migration ${migration})`);
    this.migration = migration;
    this.settle = settle;
  }
}
/** What an end says of a migration. A word and no function: it outlives the migration, and nothing of the domain is to hang on it. */
type Word = { standing: Standing };
const standings = new WeakMap<Machine, Map<string, Word>>();
/** The other end asks within minutes; older ones are forgotten. */
const STANDINGS_MAX = 1000;
/** What this machine says of a migration to the other end that asks. */
export const standingOf = (machine: Machine, migration: string): Standing => standings.get(machine)?.get(migration)?.standing ?? "unknown";
function declare(machine: Machine, migration: string, word: Word): void {
  const all = standings.get(machine) ?? new Map<string, Word>();
  standings.set(machine, all.set(migration, word));
  for (const oldest of all.keys()) if (all.size > STANDINGS_MAX) all.delete(oldest); else break;
}
const newId = (): string => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

// Sending ----------------------------------------------------------------------
/** Pages in rounds until what is left is soon sent, or there is no hope; the other end is given time to decode its code. @returns how many pages are sent in the standstill that is aimed at */
async function preCopy(domain: Domain, writer: PageWriter, sink: Sink, o: SendOptions, rounds: Round[], signal: AbortSignal): Promise<number> {
  const { hv } = partsOf(domain), aimMs = o.downtimeMs ?? DOWNTIME_MS;
  const send = async (pages: Iterable<Page>, totalPages: number): Promise<Round> => {
    mustBeThere(domain);
    const before = { pages: writer.nrPages, bytes: sink.nrBytes, ms: performance.now() };
    await writer.write(pages, (n) => {
      o.progress?.({ phase: "round", round: rounds.length, donePages: n - before.pages, totalPages, bytes: sink.nrBytes });
      mustBeThere(domain);
    });
    await sink.flush();
    mustBeThere(domain);
    const round = { pages: writer.nrPages - before.pages, bytes: sink.nrBytes - before.bytes, ms: performance.now() - before.ms };
    rounds.push(round);
    return round;
  };
  await startDirtyLog(hv);
  const heats = codeHeats(hv.hv);
  let last = await send(ownPages(hv), hv.totPages);
  const decodedMs = Math.min(DECODE_MS.most, await writeCodePlaces(sink, hv, heats) * DECODE_MS.aPlace) + performance.now();
  for (let left = countDirtyFrames(hv), stubborn = 0; rounds.length < (o.maxRounds ?? MAX_ROUNDS);) {
    const soon = soonSent(last, aimMs);
    if (left <= soon || stubborn === (o.postcopy ? 1 : STUBBORN) || sink.nrBytes > MAX_TIMES * hv.totPages * 4096) {
      const waitMs = decodedMs - performance.now();
      if (waitMs <= 0) return soon;
      await pause(waitMs, signal);
      mustBeThere(domain);
      left = countDirtyFrames(hv);
      continue;
    }
    const dirty = takeDirtyFrames(hv);
    await emptyTlbs(hv);
    last = await send(asTheyAre(domain, dirty), dirty.length);
    const now = countDirtyFrames(hv);
    stubborn = now > left * 0.9 ? stubborn + 1 : 0;
    left = now;
  }
  return soonSent(last, aimMs);
}
/** How many pages go in so many ms, by the last round. */
const soonSent = (last: Round, ms: number): number => Math.max(last.bytes, 1) / Math.max(last.ms, 0.01) * ms / 4096;
/** Pages as the domain has them when they are copied: it runs, and a frame that it gave back since is somebody else's. */
function* asTheyAre(domain: Domain, pages: Iterable<Page>): Generator<Page> {
  const { p2m } = partsOf(domain).hv;
  for (const { gfn } of pages) {
    const mfn = p2m.ram(gfn);
    if (mfn !== 0) yield { gfn, mfn };
  }
}
/** What is left when the domain stands still: dirty pages, those that are written unmarked, and the names of those that are gone. */
function lastPages(domain: Domain, writer: PageWriter): Page[] {
  const { hv, gfns } = partsOf(domain), { frames } = hv.hv.mm;
  for (const mfn of [...pinnedFrames(hv), hv.p2m.mfn(gfns.store), hv.p2m.mfn(gfns.console)]) if (mfn) frames.markDirty(mfn);
  const dirty = takeDirtyFrames(hv), { said } = writer, nrNew = dirty.reduce((n, { gfn }) => n + (said.has(gfn) ? 0 : 1), 0);
  // a page that was never sent is dirty: so many must be gone, which are seldom worth the search
  if (said.size === hv.totPages - nrNew) return dirty;
  // where Xen has lent a frame since, the domain's own is gone, too
  const gone = said.filter((gfn) => hv.p2m.ram(gfn) === 0);
  return [...dirty, ...gone.map((gfn) => ({ gfn, mfn: 0 }))];
}

/** Of the last pages those that must be there before it runs: gone ones, and what is written and read without asking whether it is there - see pinnedFrames, and its rings. */
function parted(domain: Domain, pages: readonly Page[]): { readonly now: Page[]; readonly later: Page[] } {
  const { hv, gfns, machine: { store } } = partsOf(domain), needed = new Set<number>([0, ...pinnedFrames(hv), hv.p2m.mfn(gfns.store), hv.p2m.mfn(gfns.console)]);
  for (const { path, value } of nodesOf(store, domain.domid)) {
    const gfn = RING_REF.test(path) && /^\d{1,10}$/.test(value) ? grantedGfn(hv, Number(value)) : -1;
    if (gfn >= 0) needed.add(hv.p2m.mfn(gfn));
  }
  const now: Page[] = [], later: Page[] = [];
  for (const page of pages) (needed.has(page.mfn) ? now : later).push(page);
  return { now, later };
}
/** Do once while it runs what is done when it stands still: Node compiles then what it meets for the first time, and the guest need not wait for that. */
async function rehearse(domain: Domain): Promise<void> {
  try {
    await writeImageEnd(new Sink(new WritableStream<Uint8Array>()), partsOf(domain).hv, ownNodes(domain), guestOf(domain));
  } catch (e) { if (!(e instanceof NotAsItIs)) throw e; }
}
/**
 * Send a domain; when it returns, the domain runs at the other end and is gone here.
 * @throws UserError or the signal's reason where it runs on here; MigrationInDoubt
 */
export async function sendDomain(domain: Domain, link: Link, o: SendOptions): Promise<MigrateReport> {
  return leaving(domain, () => sendAlone(domain, link, o));
}
async function sendAlone(domain: Domain, link: Link, o: SendOptions): Promise<MigrateReport> {
  const { hv, devices, machine } = partsOf(domain), migration = newId(), begunMs = performance.now(), rounds: Round[] = [];
  mayGo(domain);
  /** ends all that can be ended: a cancel, or the other end's refusal, until the guest is given away */
  const stop = new AbortController(), cancel = (): void => stop.abort(o.signal!.reason);
  o.signal?.throwIfAborted();
  o.signal?.addEventListener("abort", cancel, { once: true });
  const sink = new Sink(link.writable, o.maxBytesPerSecond ?? Number.POSITIVE_INFINITY, stop.signal), answers = new Source(link.readable), deflates = o.deflates ?? (o.maxBytesPerSecond ?? Number.POSITIVE_INFINITY) < DEFLATE_BELOW_BYTES_PER_SECOND, writer = new PageWriter(hv, sink, BATCH, deflates);
  let state: SenderState = "sending", isSuspended = false, guest: StoppedGuest | null = null, mayComeAsItIs = false, isReleased = false, suspendMs = 0, stillMs = 0, runsMs = 0, failure: unknown = null, later: readonly Page[] = [], moreBytes = 0;
  /** the state as it is now: the checker takes a variable that a closure changes for what it was last */
  const at = (): SenderState => state;
  /** it is ours again and cannot be let run */
  let trouble: UserError | null = null;
  const inTrouble = (): UserError | null => trouble;
  const word: Word = { standing: "sending" };
  const note = async (now: Standing): Promise<void> => {
    await o.journal?.note(migration, now);
    word.standing = now;
  };
  declare(machine, migration, word);
  const act = async (event: SenderEvent): Promise<void> => {
    const [next, actions] = senderStep(state, event);
    state = next;
    for (const action of actions) {
      switch (action) {
        case "noteGiven": await note("given"); break;
        // what cannot be written down is true all the same, and said to who asks as long as we live
        case "noteKept": await note("kept").catch((e: unknown) => { word.standing = "kept"; machine.log(`${domain.name}: It cannot be written down that it stays here: ${(e as Error).message}`); }); break;
        case "sendGo": sink.post(messageBytes("go")); break;
        case "resume":
          if (domain.isGone) break;
          if (domain.isInDoubt) domain.isInDoubt = domain.isLeaving = domain.control.isFixed = false;
          stopDirtyLog(hv);
          try {
            if (isReleased) await o.handOver?.retake();
            if (isSuspended) await resumeInPlace(domain);
            else if (guest) await goOn(domain);
          } catch (e) { trouble = new UserError(`${domain.name} is not moved, and cannot go on here: ${(e as Error).message}; it stands still`, { cause: e }); }
          break;
        case "end":
          runsMs = performance.now();
          if (later.length) await sendRest(hv, domain.name, later.map(({ gfn }) => gfn), migration, event.kind === "started" ? { sink, source: answers } : null, {
            deflates, maxBytesPerSecond: o.maxBytesPerSecond ?? Number.POSITIVE_INFINITY, log: machine.log, ...(o.relink ? { relink: o.relink } : {}), mustBeThere: () => mustBeThere(domain),
            progress: (donePages, totalPages) => o.progress?.({ phase: "behind", donePages, totalPages, bytes: sink.nrBytes }),
          }).then((n) => { moreBytes = n; }, (e: UserError) => { trouble = e; });
          // it is the other end's; what cannot be cleared away here does not change that
          await domain.leave().catch((e: unknown) => machine.log(`${domain.name} has moved, and cannot be taken down here: ${(e as Error).message}`));
          break;
        case "ask": break;       // by who holds the MigrationInDoubt
        default: action satisfies never;
      }
    }
  };
  /** The next message, or what the link's end has to say. */
  const heard = (): Promise<{ readonly message: string | null; readonly failure: string | null }> => readMessage(answers).catch((e: unknown) => ({ message: null, failure: (e as Error).message }));
  try {
    const hello = await unlessAborted(stop.signal, heard());
    if (hello.message !== "banner") throw new UserError(`The other end is not ready to receive: ${hello.failure ?? `it says "${hello.message}"`}`);
    const answer = (async () => {        // READY, or at any time why not
      const first = await heard();
      mayComeAsItIs = first.message === "asItIs";
      return mayComeAsItIs ? heard() : first;
    })();
    void answer.then((a) => { if (a.message !== "ready") stop.abort(new UserError(a.failure ?? "The other end refuses the domain")); });
    await sink.write(envelopeStart(o.configJson));
    await writeImageStart(sink, hv, describeDomain(domain, o.configJson, migration, o.live && !o.suspends));
    mustBeThere(domain);
    const soon = o.live ? await preCopy(domain, writer, sink, o, rounds, stop.signal) : 0;
    if (o.live && mayComeAsItIs) await rehearse(domain);
    mustBeThere(domain);
    o.progress?.({ phase: "suspend", donePages: 0, totalPages: 0, bytes: sink.nrBytes });
    const askedMs = performance.now();
    if (mayComeAsItIs) guest = await standStill(domain, stop.signal);
    if (!guest) {
      await suspendDomain(domain, stop.signal);
      isSuspended = true;
    }
    stillMs = performance.now();
    suspendMs = stillMs - askedMs;
    if (!guest) await devices.hold(false);
    mustBeThere(domain);
    let pages = o.live ? lastPages(domain, writer) : [...ownPages(hv)];
    if (o.live && o.postcopy && pages.length > soon) {
      const last = parted(domain, pages);
      pages = last.now;
      later = last.later;
    }
    await writer.write(pages, (n) => {
      o.progress?.({ phase: "stop", donePages: n, totalPages: pages.length, bytes: sink.nrBytes });
      mustBeThere(domain);
    });
    if (later.length) await writeAwaited(sink, later.map(({ gfn }) => gfn));
    if (o.handOver) {
      isReleased = true;
      await o.handOver.release();
      mustBeThere(domain);
    }
    await writeImageEnd(sink, hv, ownNodes(domain), guest);
    mustBeThere(domain);
    await sink.write(envelopeEnd());
    o.progress?.({ phase: "commit", donePages: 0, totalPages: 0, bytes: sink.nrBytes });
    const late = setTimeout(() => stop.abort(new UserError(`The other end has all of it and has not said within ${READY_MS / 1000} s that it can be started there`)), READY_MS);
    try { await unlessAborted(stop.signal, answer); } finally { clearTimeout(late); }
    stop.signal.throwIfAborted();
    mustBeThere(domain);
    o.signal?.removeEventListener("abort", cancel);
    await act({ kind: "ready" }).catch((e: unknown) => {
      state = "sending";        // it is not written down, so GO was not sent
      throw e;
    });
    const report = at() === "given" ? await readMessage(answers).catch(() => null) : null;
    if (report?.message === "report") {
      if (report.failure !== null) failure = new UserError(`The other end could not start it: ${report.failure}`);
      await act({ kind: report.failure === null ? "started" : "notStarted" });
    } else await act({ kind: "lost" });
  } catch (e) {
    failure = e;
    await act({ kind: "failed" });
  }
  o.signal?.removeEventListener("abort", cancel);
  const end = async (): Promise<void> => {
    if (!domain.isGone) stopDirtyLog(hv);
    await sink.abort(failure ?? "over");
    await answers.cancel("over");
  };
  if (at() === "doubt") {
    domain.isInDoubt = true;
    await end();
    throw new MigrationInDoubt(domain.name, migration, async (standing) => {
      await act({ kind: "answer", standing });
      const why = inTrouble();
      if (why) throw why;
      return at() === "doubt" ? undefined : at() === "kept" ? domain : null;
    });
  }
  if (at() !== "gone") {
    await end();
    const why = inTrouble();
    if (why) throw why;
    if (o.signal?.aborted) throw o.signal.reason;
    if (domain.isGone) await domain.destroy().catch(() => {});
    if (domain.isGone) throw new UserError(`${domain.name} was destroyed while it was moved`, { cause: failure });
    const { message } = failure as Error;
    throw new UserError(`${domain.name} is not moved and runs on here: ${failure instanceof UserError || !BROKEN.test(message) ? message : `the link broke (${message})`}`, { cause: failure });
  }
  const endMs = performance.now(), why = inTrouble();
  if (why) {
    await end();
    throw why;
  }
  sink.release();
  answers.release();
  return { migration, bytes: sink.nrBytes + moreBytes, pages: writer.nrPages + later.length, zeroPages: writer.nrZeros, rounds, totalMs: endMs - begunMs, isAsItIs: guest !== null, suspendMs, downtimeMs: runsMs - stillMs, latePages: later.length, lateMs: later.length ? endMs - runsMs : 0 };
}

// Receiving --------------------------------------------------------------------
/**
 * Receive a domain that sendDomain sends; when it returns, the domain runs here. By post-copy the link is still needed then, until `domain.rest` is whole.
 * @throws UserError where it does not come, with nothing left behind; MigrationInDoubt
 */
export async function receiveDomain(machine: Machine, link: Link, o: ReceiveOptions): Promise<Domain> {
  const from = new Source(link.readable), answers = new Sink(link.writable);
  let state: ReceiverState = "receiving", domain: Domain | null = null, migration = "", failure: unknown = null, isNoted = false, isAsItIs = false, arrival: Arrival | null = null;
  const word: Word = { standing: "receiving" };
  const be = (now: ReceiverState): void => {
    state = now;
    word.standing = isNoted ? "running" : now === "receiving" || now === "dropped" ? now : "ready";
  };
  /** @param otherwise what is so if it cannot be written down @returns why it cannot, or null */
  const noteRunning = async (otherwise: Standing): Promise<Error | null> => {
    try {
      await o.journal?.note(migration, "running");
      isNoted = true;
      be(state);
      return null;
    } catch (e) {
      await Promise.resolve(o.journal?.note(migration, otherwise)).catch(() => {});       // half of it may stand
      return new UserError(`${domain!.name} cannot be started: it cannot be written down that it runs here: ${(e as Error).message}`, { cause: e });
    }
  };
  const act = async (event: ReceiverEvent): Promise<void> => {
    const [next, actions] = receiverStep(state, event);
    be(next);
    for (const action of actions) {
      switch (action) {
        case "noteReady": await o.journal?.note(migration, "ready"); break;
        case "sendReady": answers.post(messageBytes("ready")); break;
        case "noteRunning": {
          const isDoubtful = event.kind === "answer", why = domain!.isGone ? new UserError(`${domain!.name} was destroyed meanwhile`) : await noteRunning(isDoubtful ? "ready" : "dropped");
          if (why === null) break;
          if (isDoubtful && !domain!.isGone) {        // the sender may be dead: to be settled again when it can be written
            be("doubt");
            throw why;
          }
          failure = why;
          be("ready");
          return act({ kind: "failed" });
        }
        case "start":
          if (domain!.isGone) break;
          if (arrival && arrival.nrLeft !== 0) {
            const rest = domain!.rest = new Rest(machine, domain!, arrival, migration, o.relinkMs ?? 0), { progress } = o;
            if (progress) rest.progress = (donePages, totalPages) => progress({ phase: "behind", donePages, totalPages, bytes: from.offset });
            void rest.whole().catch(() => {}).then(() => { domain!.rest = null; });
          }
          domain!.unpause();
          if (isAsItIs) domain!.devices.announce();
          break;
        // it runs, whether the other end hears of it or not
        case "report": answers.post(messageBytes("report", failure === null ? undefined : (failure as Error).message)); break;
        case "drop": await domain?.destroy(); break;
        case "ask": break;
        default: action satisfies never;
      }
    }
  };
  const at = (): ReceiverState => state, abort = (): void => { if (state === "receiving") void from.cancel(o.signal?.reason); };
  o.signal?.addEventListener("abort", abort, { once: true });
  try {
    o.signal?.throwIfAborted();
    answers.post(messageBytes("banner"));
    const configJson = await readEnvelopeStart(from), begun = await beginImage(from, configJson), { about } = begun;
    migration = about.migration ?? newId();
    if (restOf(machine, migration)?.isOver === false) throw new UserError(`Migration ${migration} has brought a domain here already, whose memory is still on its way`);
    declare(machine, migration, word);
    await o.prepare?.(configJson);
    const arriving = await readImage(machine, begun, (donePages) => o.progress?.({ phase: "memory", donePages, totalPages: about.maxPages, bytes: from.offset }), () => answers.post(messageBytes("asItIs")));
    isAsItIs = arriving.image.guest !== null;
    arrival = arriving.image.arrival;
    let taken = false;
    try {
      await readEnvelopeEnd(from);
      o.signal?.throwIfAborted();
      o.progress?.({ phase: "devices", donePages: 0, totalPages: 0, bytes: from.offset });
      const config = configFor(await o.open(configJson), arriving.about);
      domain = await machine.addDomain(config.name, () => { taken = true; return connectArrived(machine, config, arriving); }, { paused: true });
    } finally {
      if (!taken) await takeBack(arriving.undo);
    }
    await act({ kind: "complete" });
  } catch (e) {
    failure = o.signal?.aborted ? new UserError("The receiver gave up") : e;
    answers.post(messageBytes("report", (failure as Error).message));
    await act({ kind: "failed" });
    await from.drain(LINGER_MS);        // before our end is closed: not all that lies between passes on a half of it alone
    await from.cancel(e);
    await answers.close().catch(() => {});
    if (o.signal?.aborted) throw o.signal.reason;
    throw e instanceof UserError ? e : new UserError(`The domain did not arrive: ${(e as Error).message}`, { cause: e });
  } finally {
    o.signal?.removeEventListener("abort", abort);
  }
  const said = await readMessage(from).catch(() => null);
  await act({ kind: said?.message === "go" ? "go" : "lost" });
  if (at() === "doubt") {
    throw new MigrationInDoubt(domain.name, migration, async (standing) => {
      await act({ kind: "answer", standing });
      domain!.rest?.wait("the link broke while it was handed over");
      return at() === "doubt" ? undefined : at() === "running" ? domain! : null;
    });
  }
  if (at() === "dropped") {
    await from.cancel("over");
    await answers.close().catch(() => {});
    throw failure;
  }
  if (domain.rest) {
    void domain.rest.take({ source: from, sink: answers });
    return domain;
  }
  from.release();
  answers.release();
  return domain;
}
/**
 * receiveDomain where nobody can ask the sender: a domain that was not given before the link broke is dropped. A sender that lives asks, hears that, and keeps it.
 * @throws UserError where it does not come, with nothing left behind
 */
export async function receiveOrGiveBack(machine: Machine, link: Link, o: ReceiveOptions): Promise<Domain> {
  try {
    return await receiveDomain(machine, link, o);
  } catch (e) {
    if (!(e instanceof MigrationInDoubt)) throw e;
    await e.settle("kept");
    throw new UserError("The link broke before the domain was handed over: it is dropped here, and its sender keeps it", { cause: e });
  }
}
