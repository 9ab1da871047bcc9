/**
 * The rest of a domain that has gone ahead of it (post-copy): at the sender, where its pages are, and at the receiver, where it runs. While they are under way it hangs on both: with either end it is
 * lost. A broken link is not the end: the sender makes another, and the receiver says over it what it still lacks.
 */
import { UserError } from "../base/errors.ts";
import { pause } from "../base/wait.ts";
import type { Arrival } from "../hypervisor/arrival.ts";
import { receiveLate, sendLate } from "../migration/late.ts";
import { Sink, Source } from "../migration/stream.ts";
import type { Domain as HvDomain } from "../hypervisor/domain.ts";
import { GfnSet } from "../memory/gfn_set.ts";
import type { Machine } from "./machine.ts";

/** A way to the other end, both directions; encrypted and authenticated by whoever made it. */
export type Link = { readonly readable: ReadableStream<Uint8Array>; readonly writable: WritableStream<Uint8Array> };
/** The two directions as the sender or the receiver uses them. */
export type Ends = { readonly sink: Sink; readonly source: Source };
const endsOf = (link: Link, bytesPerSecond = Number.POSITIVE_INFINITY): Ends => ({ sink: new Sink(link.writable, bytesPerSecond), source: new Source(link.readable) });
/** Not to be waited for: what is being written may never end. */
const giveUp = ({ sink, source }: Ends, why: unknown): void => {
  void sink.abort(why);
  void source.cancel(why);
};

export type SendRestOptions = {
  readonly deflates: boolean;
  readonly maxBytesPerSecond: number;
  /** Makes another link after one broke (`receiveRest` at its other end); null: there is no way. Absent: none is to be had */
  readonly relink?: (migration: string) => Promise<Link | null>;
  /** throws when the domain is gone here: it is not to be waited for then, and its memory is others' */
  mustBeThere(): void;
  progress(done: number, total: number): void;
  log(sentence: string): void;
};
/** Links in a row that brought nothing until it is given up, and how long is waited before the next. */
const IDLE_LINKS = 10, IDLE_MS = 1000;
/**
 * Send the rest of a domain that runs at the other end: the pages `late`.
 * @param ends the link so far, or null where it broke already
 * @returns bytes that went over further links
 * @throws UserError where it cannot be: what runs there is lost
 */
export async function sendRest(hv: HvDomain, name: string, late: readonly number[], migration: string, ends: Ends | null, o: SendRestOptions): Promise<number> {
  const pages = new GfnSet();
  for (const gfn of late) pages.add(gfn);
  let why: Error = new UserError("the link broke"), nrIdle = 0, nrBytes = 0;
  for (let now = ends; ;) {
    let hasMoved = false;
    if (now) try {
      await sendLate(hv, pages, now.sink, now.source, o.deflates, o.mustBeThere, (done, total) => {
        hasMoved = true;
        o.progress(done, total);
      });
      return now === ends ? 0 : nrBytes + now.sink.nrBytes;
    } catch (e) {
      why = e as Error;
      if (now !== ends) nrBytes += now.sink.nrBytes;
      giveUp(now, e);
    }
    nrIdle = hasMoved ? 0 : nrIdle + 1;
    let next: Link | null = null;
    try {
      if (nrIdle > 1) await pause(IDLE_MS, undefined);
      o.mustBeThere();
      if (nrIdle <= IDLE_LINKS) next = await o.relink?.(migration) ?? null;
      o.mustBeThere();
    } catch (e) {
      why = e as Error;
      next = null;
    }
    if (!next) throw new UserError(`${name} has gone to the other end, and the link broke before all of its memory was there (${why.message}): it is lost`, { cause: why });
    o.log(`${name}: the link broke while its memory followed it (${why.message}); it goes on over another one`);
    now = endsOf(next, o.maxBytesPerSecond);
  }
}

/** How long the sender of a domain is given to make another link. */
export const RELINK_MS = 600_000;
const rests = new WeakMap<Machine, Map<string, Rest>>();
/** One a domain that runs here and is not all here. */
export class Rest {
  readonly migration: string;
  readonly #machine: Machine;
  readonly #name: string;
  readonly #domid: number;
  readonly #arrival: Arrival;
  readonly #patienceMs: number;
  readonly #end = Promise.withResolvers<void>();
  #ends: Ends | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** told when pages have come, of how many of how many */
  progress: (done: number, total: number) => void = () => {};
  /** pages that it lacked when it began to run */
  readonly nrPages: number;

  /** @param patienceMs how long another link is waited for after one broke */
  constructor(machine: Machine, domain: { readonly name: string; readonly domid: number }, arrival: Arrival, migration: string, patienceMs: number) {
    this.#machine = machine;
    this.#name = domain.name;
    this.#domid = domain.domid;
    this.#arrival = arrival;
    this.#patienceMs = patienceMs;
    this.migration = migration;
    this.nrPages = arrival.nrLeft;
    const all = rests.get(machine) ?? new Map<string, Rest>();
    rests.set(machine, all.set(migration, this));
    this.#end.promise.catch(() => {});
  }
  /** all is here, or the domain is gone */
  get isOver(): boolean { return this.#arrival.isOver; }
  /** pages that have not come */
  get nrLeft(): number { return this.#arrival.nrLeft; }
  /** how often somebody had to wait for a page */
  get nrWaits(): number { return this.#arrival.nrWaits; }
  /** Resolves when all is here, or the domain is gone; rejects when what is missing will not come. */
  whole(): Promise<void> { return this.#end.promise; }
  /** Take pages over a link, the first or another one; the one before it is given up. @returns when the link has done what it can */
  async take(ends: Ends): Promise<void> {
    clearTimeout(this.#timer);
    const before = this.#ends;
    this.#ends = ends;
    if (before) giveUp(before, "another link has taken its place");
    try {
      await receiveLate(this.#arrival, ends.source, ends.sink, () => this.progress(this.nrPages - this.nrLeft, this.nrPages));
      this.#ends = null;
      this.#over(null);
      ends.sink.release();
      ends.source.release();
    } catch (e) {
      if (this.#ends !== ends) return;
      this.#ends = null;
      giveUp(ends, e);
      if (this.#arrival.isOver || this.nrLeft === 0) return this.#over(null);
      this.wait((e as Error).message);
    }
  }
  /** There is no link: another one is waited for. */
  wait(cause: string): void {
    clearTimeout(this.#timer);
    if (this.#ends || this.#arrival.isOver) return;
    const why = `The link broke with ${this.nrLeft} pages of its memory on their way (${cause})`;
    this.#machine.log(`${this.#name}: ${why}${this.#patienceMs > 0 ? `; another one is waited for, up to ${this.#patienceMs / 1000} s` : ""}`);
    this.#timer = setTimeout(() => { if (!this.#ends) this.#lose(why); }, this.#patienceMs);
  }
  #lose(why: string): void {
    if (this.#arrival.isOver) return this.#over(null);
    this.#arrival.lose(`${why}, and no other was made`);
    this.#over(new UserError(`${this.#name} is lost: ${why}`));
  }
  #over(failure: Error | null): void {
    clearTimeout(this.#timer);
    const all = rests.get(this.#machine)!;
    if (failure) all.delete(this.migration);
    else forgetOldest(all);        // its sender may not have heard that all is here, and ask by another link
    this.#arrival.end();
    if (this.#machine.dom0.arrivals.get(this.#domid) === this.#arrival) this.#machine.dom0.arrivals.delete(this.#domid);
    if (failure) this.#end.reject(failure);
    else this.#end.resolve();
  }
}
/** So many that are whole are known. */
const KNOWN_MAX = 16;
function forgetOldest(known: Map<string, Rest>): void {
  for (const [migration, rest] of known) if (known.size > KNOWN_MAX && rest.isOver) known.delete(migration);
}
/** Of a domain here that waits for the rest of a migration, or has just got it all. */
export const restOf = (machine: Machine, migration: string): Rest | undefined => rests.get(machine)?.get(migration);
/** Take the rest of a domain over another link than the one that broke. @returns when the link has done what it can @throws UserError where none is waited for */
export async function receiveRest(machine: Machine, migration: string, link: Link): Promise<void> {
  const rest = restOf(machine, migration);
  if (!rest) throw new UserError(`No domain here waits for the rest of migration "${migration}"`);
  await rest.take(endsOf(link));
}
