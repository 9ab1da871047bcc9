/** What happens on a host, in order: kept for a while, and told to whoever listens. */

/** Kinds of events. */
export const EVENT_KINDS = ["domain.created", "domain.started", "domain.shutdown", "domain.died", "domain.paused", "domain.unpaused", "domain.renamed", "domain.changed", "domain.lost", "machine.started", "machine.lost", "log"] as const;
/** One of them. */
export type EventKind = (typeof EVENT_KINDS)[number];
/** An event. `seq` grows by one; `timeMs` is Unix time. */
export type HostEvent = {
  readonly seq: number; readonly timeMs: number; readonly kind: EventKind; readonly domid?: number; readonly name?: string; readonly uuid?: string;
  /** of an end: the guest's word or ours */
  readonly reason?: string;
  /** of an end: what follows by the configuration: "restart", "destroy", "preserve" ... */
  readonly action?: string;
  readonly text?: string;
};
/** Listeners that do not keep up lose their connection, not our memory. */
const KEPT = 1000;

/** What happened: the last thousand events, and who listens. */
export class EventLog {
  #seq = 0;
  readonly #kept: HostEvent[] = [];
  readonly #listeners = new Set<(e: HostEvent) => void>();

  get nrListeners(): number { return this.#listeners.size; }
  /** It happened. */
  emit(e: Omit<HostEvent, "seq" | "timeMs"> & { readonly timeMs?: number }): HostEvent {
    const event: HostEvent = { ...e, seq: ++this.#seq, timeMs: e.timeMs ?? Date.now() };
    this.#kept.push(event);
    if (this.#kept.length > KEPT) this.#kept.shift();
    for (const told of [...this.#listeners]) told(event);
    return event;
  }
  /** Those after `since` that are kept. */
  after(since: number): HostEvent[] { return this.#kept.filter((e) => e.seq > since); }
  /** Hear of those after `since` (undefined: only of new ones), in order. @returns ends it */
  listen(told: (e: HostEvent) => void, since?: number): () => void {
    if (since !== undefined) for (const e of this.after(since)) told(e);
    this.#listeners.add(told);
    return () => { this.#listeners.delete(told); };
  }
}
