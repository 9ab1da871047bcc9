/**
 * Captures: what passes a cable, or what enters a bridge, as a pcapng file. The path is not disturbed: frames go on whatever becomes of the capture, and where its sink is slow,
 * frames are missing from the file and counted there. Large frames with `gso` are written as they passed; blank checksums are completed in the file.
 */
import { Bridge, type BridgePort, type DropReason } from "./bridge.ts";
import { completed } from "./checksum.ts";
import { interfaceBlock, packetBlock, sectionBlock, statisticsBlock } from "./pcapng.ts";
import { disconnect, type Frame, type Port } from "./port.ts";

/** Where the file goes: a file, or the writer of a stream. One `write` at a time; `close` after the last. */
export interface CaptureSink {
  write(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  close(): Promise<void>;
}
/** How to capture. */
export type CaptureOptions = {
  /** bytes of a frame that are kept; all if not said */
  readonly snapLenBytes?: number;
  /** which frames to keep */
  readonly filter?: (frame: Frame, interfaceName: string) => boolean;
  /** bytes that may wait for the sink; 16 MiB if not said */
  readonly queueBytesMax?: number;
  /** the capture stops before the file grows beyond this */
  readonly fileBytesMax?: number;
  /** since 1970, in ns; the host's clock if not said */
  readonly nowNs?: () => bigint;
  /** stands at the file's head */
  readonly comment?: string;
};
type Interface = { readonly nr: number; readonly name: string; nrFrames: number; nrDropped: number; nrDroppedTold: number };
type Passing = { readonly on: Interface; readonly frame: Frame; readonly timeNs: bigint; readonly direction: "in" | "out"; comment: string; nrDropped: number; isVoid: boolean };

const QUEUE_BYTES = 16 << 20;
/** What a packet takes in the file besides its bytes, at most. */
const BLOCK_BYTES = 128;
const hostNowNs = (): bigint => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;

/** A capture that runs until `stop`, until its sink fails, or until its file is full. */
export class Capture {
  readonly #sink: CaptureSink;
  readonly #options: CaptureOptions;
  readonly #nowNs: () => bigint;
  readonly #beganNs: bigint;
  readonly #interfaces = new Map<object, Interface>();
  #blocks: Uint8Array[];
  #notes: Passing[] = [];
  /** bytes of notes and blocks that the sink has not taken */
  #queuedBytes = 0;
  #fileBytes = 0;
  #isPumping = false;
  #state: "running" | "stopping" | "ended" = "running";
  #unplug: () => void = () => {};
  readonly #ended = Promise.withResolvers<Error | null>();
  /** Settles when the last byte is in the sink: with null, or with why the sink failed. */
  readonly ended: Promise<Error | null> = this.#ended.promise;

  /** Made by `capture`. */
  constructor(sink: CaptureSink, options: CaptureOptions) {
    this.#sink = sink;
    this.#options = options;
    this.#nowNs = options.nowNs ?? hostNowNs;
    this.#beganNs = this.#nowNs();
    this.#blocks = [sectionBlock("Domus", options.comment)];
  }
  /** What to do when the capture ends. */
  set unplug(unplug: () => void) { this.#unplug = unplug; }
  /** frames written or about to be, and frames that were lost because the sink was slow */
  get counters(): { nrFrames: number; nrDropped: number } {
    let nrFrames = 0, nrDropped = 0;
    for (const one of this.#interfaces.values()) { nrFrames += one.nrFrames; nrDropped += one.nrDropped; }
    return { nrFrames, nrDropped };
  }
  /** The interface of an object, made when first asked for. */
  interfaceOf(key: object, name: string): Interface {
    let one = this.#interfaces.get(key);
    if (!one) {
      one = { nr: this.#interfaces.size, name, nrFrames: 0, nrDropped: 0, nrDroppedTold: 0 };
      this.#interfaces.set(key, one);
      this.#blocks.push(interfaceBlock(name, this.#options.snapLenBytes ?? 0));
      this.#pumpSoon();
    }
    return one;
  }

  /** A frame passes: call before it goes on, so that what answers it stands behind it. @returns to be called at once afterwards, with a comment, or null when it did not pass */
  note(on: Interface, frame: Frame, direction: "in" | "out"): (comment: string | null) => void {
    if (this.#state !== "running" || !this.#isWanted(frame, on)) return () => {};
    const bytes = Math.min(frame.bytes.length, this.#options.snapLenBytes || Infinity) + BLOCK_BYTES;
    const noted: Passing = { on, frame, timeNs: this.#nowNs(), direction, comment: "", nrDropped: 0, isVoid: false };
    const isLost = this.#queuedBytes + bytes > (this.#options.queueBytesMax ?? QUEUE_BYTES);
    if (!isLost) {
      this.#notes.push(noted);
      this.#queuedBytes += bytes;
      this.#pumpSoon();
    }
    return (comment) => {
      if (comment === null) noted.isVoid = true;
      else if (isLost) on.nrDropped++;
      else {
        on.nrFrames++;
        noted.comment = comment;
        noted.nrDropped = on.nrDropped - on.nrDroppedTold;
        on.nrDroppedTold = on.nrDropped;
      }
    };
  }

  #isWanted(frame: Frame, on: Interface): boolean {
    try {
      return this.#options.filter?.(frame, on.name) ?? true;
    } catch (e) {
      this.#fail(e as Error);
      return false;
    }
  }

  #pumpSoon(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    queueMicrotask(() => { void this.#pump(); });
  }
  async #pump(): Promise<void> {
    try {
      while (this.#blocks.length > 0 || this.#notes.length > 0) {
        const parts = this.#blocks, notes = this.#notes, queuedBytes = this.#queuedBytes;
        this.#blocks = [];
        this.#notes = [];
        for (const noted of notes) if (!noted.isVoid) parts.push(this.#encode(noted));
        await this.#write(parts);
        this.#queuedBytes -= queuedBytes;
      }
      if (this.#state === "stopping") await this.#finish();
    } catch (e) {
      this.#fail(e as Error);
    } finally {
      this.#isPumping = false;
    }
  }
  #encode({ on, frame, timeNs, direction, comment, nrDropped }: Passing): Uint8Array {
    const { bytes } = completed(frame);
    return packetBlock({ interfaceNr: on.nr, timeNs, direction, comment, nrDropped, lengthBytes: bytes.length, bytes: bytes.subarray(0, this.#options.snapLenBytes || undefined) });
  }
  async #write(parts: readonly Uint8Array[]): Promise<void> {
    const room = (this.#options.fileBytesMax ?? Infinity) - this.#fileBytes;
    let sizeBytes = 0, nrFit = 0;
    while (nrFit < parts.length && sizeBytes + parts[nrFit]!.length <= room) sizeBytes += parts[nrFit++]!.length;
    const bytes = new Uint8Array(sizeBytes);
    let at = 0;
    for (const part of parts.slice(0, nrFit)) {
      bytes.set(part, at);
      at += part.length;
    }
    this.#fileBytes += sizeBytes;
    if (sizeBytes > 0) await this.#sink.write(bytes);
    if (nrFit === parts.length) return;
    this.#blocks = [];
    this.#notes = [];
    this.#unplugNow();
  }
  #unplugNow(): void {
    if (this.#state !== "running") return;
    this.#state = "stopping";
    this.#unplug();
  }
  async #finish(): Promise<void> {
    const nowNs = this.#nowNs();
    await this.#write([...this.#interfaces.values()].map((one) => statisticsBlock(one.nr, this.#beganNs, nowNs, one.nrFrames + one.nrDropped, one.nrDropped)));
    await this.#sink.close();
    this.#end(null);
  }
  #fail(why: Error): void {
    this.#end(why);
    void this.#sink.close().catch(() => {});
  }
  #end(why: Error | null): void {
    this.#unplugNow();
    this.#state = "ended";
    this.#notes = [];
    this.#blocks = [];
    this.#ended.resolve(why);
  }
  /** Take no more frames, write what waits and the statistics, and close the sink. Safe to call again. @returns as `ended` */
  stop(): Promise<Error | null> {
    this.#unplugNow();
    if (this.#state === "stopping") this.#pumpSoon();
    return this.ended;
  }
}

/** One of the two ends that stand in a cable: `peer` is the end they are plugged into, and take the other's place for it. */
class Between implements Port {
  peer: Port | null = null;
  /** the other one of the two */
  other!: Between;
  readonly #far: Port;
  readonly #note: (frame: Frame) => (comment: string | null) => void;
  constructor(far: Port, note: (frame: Frame) => (comment: string | null) => void) {
    this.#far = far;
    this.#note = note;
  }
  get name(): string { return this.#far.name; }
  get takesGso(): boolean { return this.#far.takesGso; }
  get takesBlankChecksum(): boolean { return this.#far.takesBlankChecksum; }
  receive(frame: Frame): boolean {
    const to = this.other.peer;
    if (!to) return true;
    const tell = this.#note(frame), isTaken = to.receive(frame);
    tell(isTaken ? "" : null);
    return isTaken;
  }
  ready(): void {
    if (this.peer) this.other.peer?.ready();
    else disconnect(this.other);  // the cable was pulled out at this end
  }
}
/** Put two ends into the cable of `port`. @returns takes them out */
function tapCable(port: Port, capture: Capture): () => void {
  const far = port.peer;
  if (!far) throw new Error(`Port ${port.name} has no cable: there is nothing to capture`);
  const on = capture.interfaceOf(port, port.name);
  const atPort = new Between(far, (frame) => capture.note(on, frame, "out")), atFar = new Between(port, (frame) => capture.note(on, frame, "in"));
  [atPort.other, atFar.other] = [atFar, atPort];
  [port.peer, atPort.peer, far.peer, atFar.peer] = [atPort, port, atFar, far];
  return () => {
    if (port.peer !== atPort || far.peer !== atFar) return;
    [port.peer, far.peer, atPort.peer, atFar.peer] = [far, port, null, null];
  };
}
const commentOf = (fate: DropReason | "wait" | null): string | null => (fate === "wait" ? null : fate ? `dropped: ${fate}` : "");

/**
 * Capture a port's cable, both ways (`in` is what the port receives), or a bridge: each frame once, where it enters, dropped ones with a comment that says why, and an interface
 * for each port.
 */
export function capture(what: Port | Bridge, sink: CaptureSink, options: CaptureOptions = {}): Capture {
  const made = new Capture(sink, options);
  if (!(what instanceof Bridge)) {
    made.unplug = tapCable(what, made);
    return made;
  }
  for (const port of what.ports) made.interfaceOf(port, port.name);
  made.unplug = what.tap((port: BridgePort, frame) => {
    const tell = made.note(made.interfaceOf(port, port.name), frame, "in");
    return (fate) => tell(commentOf(fate));
  });
  return made;
}
