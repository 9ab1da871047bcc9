/**
 * A cable to another machine or process over a stream of bytes: TCP, a Unix socket. It is an end of a cable here (`connect` it with a bridge's port) and finds its peer again when
 * the connection is lost; meanwhile frames are lost, as on a cable that is out. The peer is not trusted with more than any guest: it may send frames, and break nothing.
 */
import type { ByteConnection } from "../base/stream.ts";
import { hostClock, type NetClock } from "./clock.ts";
import { aliveRecord, headOf, helloBytes, LinkFault, type LinkMode, type Offers, RecordCutter } from "./link-wire.ts";
import { suited } from "./offload.ts";
import { disconnect, type Frame, type Port } from "./port.ts";

/** How a link is made. */
export type LinkOptions = {
  readonly name: string;
  /** `qemu`: the peer is QEMU's `-netdev stream` or `socket`, or speaks as it does */
  readonly mode: LinkMode;
  /** Open a connection to the peer: the link calls it until it is closed. Left out: the peer comes to us (`accept`). */
  readonly dial?: () => Promise<ByteConnection>;
  /** what we take; both if not said. Only for mode `domus` */
  readonly offers?: Offers;
  readonly log?: (sentence: string) => void;
  readonly clock?: NetClock;
};
/** `lost`: frames for the peer while there was none, or in a form that it does not take. */
export type LinkCounters = { rxFrames: number; rxBytes: number; txFrames: number; txBytes: number; lost: number; connections: number };

/** A sign of life is sent so often; a peer that says nothing for three times as long is taken for dead. Also the time for its hello. */
const ALIVE_MS = 5000, SILENCE_MS = 3 * ALIVE_MS;
/** The sender waits while more is on its way than QUEUE_BYTES, and is told when half of it is gone. */
const QUEUE_BYTES = 1 << 20;
/** Connections at a time, nearly all of which have not said hello. */
const SESSIONS_MAX = 8;
/** Parts handed over in one write. */
const PARTS_MAX = 512;
const RETRY_MS = { first: 250, last: 10_000 } as const;

/** A connection with its state; the link has one that is up, and perhaps others that have not said hello. */
type Session = { readonly connection: ByteConnection; readonly cutter: RecordCutter; heardMs: number; parts: Uint8Array[]; queuedBytes: number; isFlushing: boolean; isOver: boolean };

/** One end of the cable; the other is at the peer. */
export class Link implements Port {
  readonly name: string;
  peer: Port | null = null;
  readonly counters: LinkCounters = { rxFrames: 0, rxBytes: 0, txFrames: 0, txBytes: 0, lost: 0, connections: 0 };
  readonly #options: LinkOptions;
  readonly #clock: NetClock;
  readonly #offers: Offers;
  readonly #sessions = new Set<Session>();
  #session: Session | null = null;
  /** our cable's end was told to wait */
  #hasRefused = false;
  /** a frame from the peer waits for room here */
  #onRoom: (() => void) | null = null;
  #isClosed = false;
  #hasFailed = false;
  readonly #forgets = new Set<() => void>();

  constructor(options: LinkOptions) {
    this.name = options.name;
    this.#options = options;
    this.#clock = options.clock ?? hostClock;
    this.#offers = options.offers ?? { takesGso: true, takesBlankChecksum: true };
    if (options.dial) void this.#keepDialling(options.dial);
  }
  get takesGso(): boolean { return this.#session?.cutter.offers?.takesGso ?? false; }
  get takesBlankChecksum(): boolean { return this.#session?.cutter.offers?.takesBlankChecksum ?? false; }
  /** the peer's address while there is a connection */
  get peerName(): string | null { return this.#session?.connection.peerName ?? null; }
  #say(sentence: string): void { this.#options.log?.(`link ${this.name}: ${sentence}`); }
  #after(delayMs: number, act: () => void): () => void {
    const cancel = this.#clock.after(delayMs, () => { this.#forgets.delete(forget); act(); });
    const forget = () => { this.#forgets.delete(forget); cancel(); };
    this.#forgets.add(forget);
    return forget;
  }

  async #keepDialling(dial: () => Promise<ByteConnection>): Promise<void> {
    for (let retryMs: number = RETRY_MS.first; !this.#isClosed;) {
      const before = this.counters.connections;
      try {
        await this.accept(await dial());
      } catch (e) {
        this.#failed((e as Error).message);
      }
      if (this.counters.connections > before) retryMs = RETRY_MS.first;
      if (!this.#isClosed) await new Promise<void>((resolve) => { this.#after(retryMs, resolve); });
      retryMs = Math.min(RETRY_MS.last, retryMs * 2);
    }
  }
  /** Said once, until a connection has come about again. */
  #failed(why: string): void {
    if (!this.#hasFailed && !this.#isClosed) this.#say(why);
    this.#hasFailed = true;
  }

  /**
   * Go over this connection from now on: the peer has come. One that was there is given up once the new one's peer has said hello.
   * @returns settles when the connection is over
   */
  async accept(connection: ByteConnection): Promise<void> {
    const { mode } = this.#options, cutter = new RecordCutter(mode, this.#offers);
    const session: Session = { connection, cutter, heardMs: this.#clock.nowMs(), parts: [], queuedBytes: 0, isFlushing: false, isOver: false };
    if (this.#isClosed || this.#sessions.size >= SESSIONS_MAX) {
      connection.close();
      return;
    }
    this.#sessions.add(session);
    let why = "";
    try {
      if (mode === "qemu") this.#adopt(session);
      else {
        this.#write(session, helloBytes(this.#offers));
        this.#watch(session);
      }
      while (!session.isOver) {
        const chunk = await connection.read();
        if (!chunk) throw new LinkFault("ended the connection");
        session.heardMs = this.#clock.nowMs();
        await this.#take(session, chunk);
      }
    } catch (e) {
      why = e instanceof LinkFault ? `${connection.peerName} ${e.message}` : (e as Error).message;
    }
    this.#end(session, why);
  }
  #end(session: Session, why: string): void {
    session.connection.close();
    this.#sessions.delete(session);
    const isSaid = !session.isOver && why !== "";
    session.isOver = true;
    if (isSaid) this.#failed(why);
    if (this.#session !== session) return;
    this.#session = null;
    this.#tellRoom();
    this.ready();
  }
  #adopt(session: Session): void {
    const old = this.#session;
    this.#session = session;
    this.#hasFailed = false;
    this.counters.connections++;
    if (old) {
      this.#end(old, "");
      this.ready();  // it may wait with a frame in its hand
    }
    this.#say(`connected with ${session.connection.peerName}`);
  }
  /** Give signs of life and expect them. */
  #watch(session: Session): void {
    this.#after(ALIVE_MS, () => {
      if (session.isOver) return;
      // A peer that we do not read cannot be heard.
      if (this.#onRoom && session === this.#session) session.heardMs = this.#clock.nowMs();
      if (this.#clock.nowMs() - session.heardMs >= SILENCE_MS) {
        this.#end(session, `${session.connection.peerName} said nothing for ${SILENCE_MS / 1000} s`);
        return;
      }
      if (session.queuedBytes === 0) this.#write(session, aliveRecord());
      this.#watch(session);
    });
  }

  async #take(session: Session, chunk: Uint8Array): Promise<void> {
    const { cutter } = session, wasGreeted = cutter.offers !== null;
    cutter.feed(chunk);
    for (let cut = cutter.next(); ; cut = cutter.next()) {
      if (!wasGreeted && cutter.offers && this.#session !== session && !session.isOver) this.#adopt(session);
      if (!cut || session.isOver) return;
      if (cut.frame) await this.#deliver(session, cut.frame);
    }
  }
  async #deliver(session: Session, frame: Frame): Promise<void> {
    this.counters.rxFrames++;
    this.counters.rxBytes += frame.bytes.length;
    for (const one of this.peer ? suited(frame, this.peer) : []) {
      while (this.peer && !session.isOver && !this.peer.receive(one)) await new Promise<void>((resolve) => { this.#onRoom = resolve; });
    }
  }
  ready(): void {
    const go = this.#onRoom;
    this.#onRoom = null;
    go?.();
  }

  receive(frame: Frame): boolean {
    const session = this.#session;
    if (!session) {
      this.counters.lost++;
      return true;
    }
    if (session.queuedBytes > QUEUE_BYTES) {
      this.#hasRefused = true;
      return false;
    }
    const frames = suited(frame, this);
    if (frames.length === 0) this.counters.lost++;
    for (const one of frames) {
      this.#write(session, headOf(one, this.#options.mode), one.bytes);
      this.counters.txFrames++;
      this.counters.txBytes += one.bytes.length;
    }
    return true;
  }
  /** Frames of one turn go out in one write. */
  #write(session: Session, ...parts: Uint8Array[]): void {
    session.parts.push(...parts);
    session.queuedBytes += parts.reduce((sum, part) => sum + part.length, 0);
    if (session.isFlushing) return;
    session.isFlushing = true;
    queueMicrotask(() => { void this.#flush(session); });
  }
  async #flush(session: Session): Promise<void> {
    try {
      while (session.parts.length > 0) {
        const parts = session.parts.splice(0, PARTS_MAX), bytes = parts.reduce((sum, part) => sum + part.length, 0);
        await session.connection.write(...parts);
        session.queuedBytes -= bytes;
        if (session.queuedBytes <= QUEUE_BYTES / 2) this.#tellRoom();
      }
      session.isFlushing = false;
    } catch (e) {
      this.#end(session, (e as Error).message);
    }
  }
  #tellRoom(): void {
    if (!this.#hasRefused) return;
    this.#hasRefused = false;
    this.peer?.ready();
  }

  /** End the connection and pull the cable. Safe to call again. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const session of [...this.#sessions]) this.#end(session, "");
    for (const forget of [...this.#forgets]) forget();
    disconnect(this);
  }
}
