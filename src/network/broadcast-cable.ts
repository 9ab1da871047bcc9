/**
 * A cable between all tabs of one origin that plug it in, over a BroadcastChannel: what one sends all others hear. Its messages come from any script of the origin, and are checked like a
 * guest's frames. Batches are acknowledged, and who has too many on the way waits: a tab that is asleep is counted out after a while.
 */
import { hostClock, type NetClock } from "./clock.ts";
import { disconnect, type Frame, type Port } from "./port.ts";

/** Frames of one message; messages on the way; bytes of the longest frame; frames that wait for room here. */
const BATCH_MAX = 64, WINDOW = 8, FRAME_BYTES_MAX = 65535 + 22, WAITING_MAX = 256;
/** A tab that acknowledges nothing for so long is not waited for until it does. */
const SILENCE_MS = 1000;
type Message = { readonly v: 1; readonly from: string } & ({ readonly kind: "hello" | "here" | "bye" } | { readonly kind: "frames"; readonly nr: number; readonly frames: readonly Frame[] } | { readonly kind: "ack"; readonly to: string; readonly nr: number });
/** What a BroadcastChannel is to the cable. */
export type Channel = Pick<BroadcastChannel, "postMessage" | "close"> & { onmessage: ((event: MessageEvent) => void) | null };

/** Is it a frame as port.ts has them? */
function isFrame(f: unknown): f is Frame {
  const { bytes, checksum, gso } = (f ?? {}) as { bytes?: unknown; checksum?: unknown; gso?: { type?: unknown; mss?: unknown } | null };
  return bytes instanceof Uint8Array && bytes.buffer instanceof ArrayBuffer && bytes.length >= 14 && bytes.length <= FRAME_BYTES_MAX && (checksum === "unknown" || checksum === "blank")
    && (gso === null || (typeof gso === "object" && checksum === "blank" && (gso.type === "tcpv4" || gso.type === "tcpv6") && Number.isInteger(gso.mss) && (gso.mss as number) >= 64 && (gso.mss as number) <= 65535));
}

/** One tab's end. */
export class BroadcastCable implements Port {
  readonly name: string;
  readonly takesGso = true;
  readonly takesBlankChecksum = true;
  peer: Port | null = null;
  readonly counters = { rxFrames: 0, txFrames: 0, lost: 0, refused: 0 };
  readonly #channel: Channel;
  readonly #clock: NetClock;
  readonly #id: string;
  /** by tab: the last batch it acknowledged, and since when it owes one */
  readonly #tabs = new Map<string, { acked: number; sinceMs: number }>();
  #out: Frame[] = [];
  #nrSent = 0;
  #hasRefused = false;
  #isQueued = false;
  #waiting: Frame[] = [];
  #again: (() => void) | null = null;

  constructor(options: { readonly name: string; readonly channel: Channel; readonly id?: string; readonly clock?: NetClock }) {
    this.name = options.name;
    this.#channel = options.channel;
    this.#clock = options.clock ?? hostClock;
    this.#id = options.id ?? crypto.randomUUID();
    this.#channel.onmessage = (e) => this.#hear(e.data);
    this.#say({ kind: "hello" });
  }
  /** Tabs at the other ends. */
  get nrTabs(): number { return this.#tabs.size; }
  #say(m: Message extends infer T ? (T extends Message ? Omit<T, "v" | "from"> : never) : never): void { this.#channel.postMessage({ v: 1, from: this.#id, ...m }); }

  /** Batches on the way to the slowest tab that is not asleep. */
  #nrOnTheWay(): number {
    const now = this.#clock.nowMs();
    let least = this.#nrSent;
    for (const tab of this.#tabs.values()) if (now - tab.sinceMs < SILENCE_MS) least = Math.min(least, tab.acked);
    return this.#nrSent - least;
  }
  receive(frame: Frame): boolean {
    if (this.#tabs.size === 0) { this.counters.lost++; return true; }
    if (this.#out.length >= BATCH_MAX) {
      this.#hasRefused = true;
      return false;
    }
    this.#out.push(frame.checksum === "good" ? { ...frame, checksum: "unknown" } : frame);
    if (!this.#isQueued) {
      this.#isQueued = true;
      queueMicrotask(() => { this.#isQueued = false; this.#flush(); });
    }
    return true;
  }
  #flush(): void {
    if (this.#out.length === 0) return;
    if (this.#nrOnTheWay() >= WINDOW) {
      this.#again ??= this.#clock.after(SILENCE_MS, () => { this.#again = null; this.#flush(); });      // in case nobody answers any more
      return;
    }
    const frames = this.#out, now = this.#clock.nowMs();
    this.#out = [];
    this.counters.txFrames += frames.length;
    for (const tab of this.#tabs.values()) if (tab.acked === this.#nrSent) tab.sinceMs = now;
    this.#say({ kind: "frames", nr: ++this.#nrSent, frames: frames.map(({ bytes, checksum, gso }) => ({ bytes: bytes.length === bytes.buffer.byteLength ? bytes : bytes.slice(), checksum, gso })) });      // a copy takes the whole buffer along
    if (this.#hasRefused) {
      this.#hasRefused = false;
      this.peer?.ready();
    }
  }
  /** The bridge has room again. */
  ready(): void {
    while (this.#waiting.length > 0) {
      if (this.peer && !this.peer.receive(this.#waiting[0]!)) return;
      this.#waiting.shift();
    }
  }
  #hear(said: unknown): void {
    const m = said as Partial<Message> | null;
    if (typeof m !== "object" || m === null || m.v !== 1 || typeof m.from !== "string" || m.from.length > 64 || m.from === this.#id) return;
    const tab = this.#tabs.get(m.from);
    switch (m.kind) {
      case "bye": this.#tabs.delete(m.from); this.#flush(); return;
      case "hello": case "here":
        if (!tab && this.#tabs.size < 256) this.#tabs.set(m.from, { acked: this.#nrSent, sinceMs: this.#clock.nowMs() });
        if (m.kind === "hello") this.#say({ kind: "here" });
        return;
      case "ack":
        if (m.to !== this.#id || !tab || !Number.isSafeInteger(m.nr) || m.nr! > this.#nrSent || m.nr! <= tab.acked) return;
        tab.acked = m.nr!;
        tab.sinceMs = this.#clock.nowMs();
        this.#flush();
        return;
      case "frames":
        if (!Array.isArray(m.frames) || m.frames.length > BATCH_MAX || !Number.isSafeInteger(m.nr)) return;
        for (const frame of m.frames) {
          if (!isFrame(frame)) this.counters.refused++;
          else if (this.#waiting.length >= WAITING_MAX) this.counters.lost++;
          else { this.counters.rxFrames++; this.#waiting.push(frame); }
        }
        this.ready();
        this.#say({ kind: "ack", to: m.from, nr: m.nr! });
        return;
      default: return;
    }
  }
  close(): void {
    this.#again?.();
    this.#say({ kind: "bye" });
    this.#channel.onmessage = null;
    this.#channel.close();
    disconnect(this);
  }
}
