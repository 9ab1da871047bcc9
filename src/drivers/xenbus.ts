/**
 * A split driver's back end as xenstore sees it: the two ends' states, what the back end offers, when it connects and lets go. One object a device,
 * whatever its kind; what the kind does stands behind `BackDriver`.
 *
 *     back end   Initialising  InitWait             Connected     Closing  Closed   (online: InitWait again; else gone)
 *     front end                Initialising ...  Initialised/Connected     Closing ...  Closed
 *
 * @see public/io/xenbus.h, and docs/misc/xenstore-paths.pandoc for the paths
 */
import { XenbusState } from "../abi/io/xenbus.ts";
import { within } from "../base/wait.ts";
import type { Client } from "../xenstore/client.ts";
import { backPath, type DeviceName, frontPath } from "../xenstore/device-entries.ts";
import { FrontRefusal } from "./ring.ts";

/** Sentences about a guest's broken ends before the log hears no more of the device: a guest can break one after the other. */
const COMPLAINTS = 5;

/** How long a front end that has lost its device gets answers, and how often it is looked whether it wants them still. */
const LINGER_MS = 120_000, LINGER_LOOK_MS = 100;

/** The front end's own keys, read once at connecting. Everything in them is the guest's word. */
export type FrontKeys = {
  text(key: string): string | undefined;
  /** @returns `otherwise` where there is no such key @throws FrontRefusal where it is no whole number of the range */
  number(key: string, least: number, most: number, otherwise?: number): number;
};

/** A kind of device. All calls are made one after the other. */
export interface BackDriver {
  /** "vbd", "vif": the class in paths */
  readonly kind: string;
  /** keys to write before the front end is waited for */
  offer(): Readonly<Record<string, string | number>>;
  /** Map rings and bind events. @throws FrontRefusal with nothing left behind */
  connect(front: FrontKeys): void | Promise<void>;
  /** Let go of all that `connect` took, when requests in flight have ended. Called also where `connect` was not. */
  disconnect(): void | Promise<void>;
  /** Do nothing for the front end any more, but answer what it asks, with errors. @returns when the host's side is used no more. Absent: a front end waits for no answer */
  refuse?(): Promise<void>;
  /** After `refuse`: have the front end look for answers. @returns whether it may still wait for some */
  nudge?(): boolean;
  /** the guest has broken a ring: set by XenbusBack, called by the driver at any time, `connect` included; `disconnect` follows */
  onBroken: (why: string) => void;
}

/** The back end of one device. */
export class XenbusBack {
  readonly device: DeviceName;
  readonly path: string;
  readonly frontPath: string;
  readonly driver: BackDriver;
  readonly #xs: Client;
  readonly #log: (sentence: string) => void;
  readonly #watch: Disposable;
  #state: number = XenbusState.Unknown;
  #isConnected = false;
  #isClosed = false;
  /** steps run one after the other; one more is asked for while one runs */
  #running: Promise<void> | null = null;
  #again = false;
  /** what the driver found broken, until a step has seen to it */
  #broken: string | null = null;
  #nrComplaints = 0;
  #isLeaving = false;
  /** no step is taken, and the rings are let go of; it was connected when that began */
  #isHeld = false;
  #wasConnected = false;
  #nrDetaching = 0;
  #gone = Promise.withResolvers<void>();
  #endLinger: (() => Promise<void>) | null = null;

  /** The nodes of both ends exist already, see `deviceEntries`. Begins at once. */
  constructor(xs: Client, domid: number, devid: number, driver: BackDriver, log: (sentence: string) => void) {
    this.device = { domid, kind: driver.kind, devid };
    this.driver = driver;
    this.path = backPath(domid, driver.kind, devid);
    this.frontPath = frontPath(domid, driver.kind, devid);
    this.#xs = xs;
    this.#log = log;
    driver.onBroken = (why) => {
      this.#broken ??= why;
      void this.poll();
    };
    for (const [key, value] of Object.entries(driver.offer())) xs.write(`${this.path}/${key}`, String(value));
    this.#setState(XenbusState.InitWait);
    this.#watch = xs.watch(`${this.frontPath}/state`, () => { void this.poll(); });
  }

  get #errorPath(): string { return this.path.replace("/backend/", "/error/backend/"); }
  get name(): string { return `d${this.device.domid} ${this.device.kind} ${this.device.devid}`; }
  get state(): number { return this.#state; }
  get isConnected(): boolean { return this.#isConnected; }

  #setState(state: number): void {
    if (this.#isClosed) return;
    this.#state = state;
    if (this.#xs.read(`${this.path}/state`) !== undefined) this.#xs.write(`${this.path}/state`, String(state));
  }
  /** Do both ends stand where they will stay: connected, or without a driver at the front? */
  get isSteady(): boolean {
    const front = Number(this.#xs.read(`${this.frontPath}/state`) ?? XenbusState.Unknown);
    if (this.#isLeaving || this.#isClosed || this.#running) return false;
    switch (this.#state) {
      case XenbusState.Connected: return front === XenbusState.Connected && this.#isConnected;
      case XenbusState.InitWait: return front === XenbusState.Initialising;
      default: return false;
    }
  }
  /** Change keys of a connected device and have the front end look again: a resized disk, another medium. */
  update(keys: Readonly<Record<string, string | number>>): void {
    if (this.#isClosed || this.#xs.read(`${this.path}/state`) === undefined) return;
    this.#xs.transaction((t) => {
      for (const [key, value] of Object.entries(keys)) t.write(`${this.path}/${key}`, String(value));
      t.write(`${this.path}/state`, String(this.#state));
    });
  }

  /** Look at the front end's state and follow it. @returns when done */
  poll(): Promise<void> {
    this.#again = true;
    return this.#running ??= (async () => {
      await null;       // a step that has this called, by the driver it calls, must find it running
      try {
        while (this.#again && !this.#isClosed && !this.#isHeld) {
          this.#again = false;
          await this.#step();
        }
      } finally {
        this.#running = null;
      }
    })();
  }
  async #step(): Promise<void> {
    const broken = this.#broken;
    this.#broken = null;
    if (broken !== null && this.#isConnected) await this.#fail(broken);
    const state = Number(this.#xs.read(`${this.frontPath}/state`) ?? XenbusState.Unknown);
    switch (state) {
      case XenbusState.Initialising:
        if (this.#state === XenbusState.Closed || this.#state === XenbusState.Closing || this.#isConnected) {
          await this.#disconnect();       // it begins anew without having closed: another kernel, or a driver reloaded
          this.#setState(this.#isLeaving ? XenbusState.Closed : XenbusState.InitWait);
          if (this.#isLeaving) this.#gone.resolve();
        }
        return;
      case XenbusState.Initialised: case XenbusState.Connected:
        if (this.#isConnected) return;
        // Linux's 9pnet_xen up to 6.6, when it is loaded once more, has its rings ready at once
        if (state === XenbusState.Initialised && this.#state === XenbusState.Closed && !this.#isLeaving) this.#setState(XenbusState.InitWait);
        if (this.#state !== XenbusState.InitWait) return;
        return this.#connect();
      case XenbusState.Closing:
        // It goes on using the device until it says Closed: Linux up to 5.15 says Closing of a disk that is mounted, and Closed when it is not any more.
        if (this.#state !== XenbusState.Closed) this.#setState(XenbusState.Closing);
        return;
      case XenbusState.Closed: case XenbusState.Unknown:
        if (state === XenbusState.Unknown && !this.#isConnected) return;
        if (!(state === XenbusState.Closed && this.#isLeaving && this.driver.refuse)) await this.#disconnect();      // else see takeAway
        this.#setState(XenbusState.Closed);
        if (state === XenbusState.Unknown || this.#xs.read(`${this.path}/online`) !== "1") this.#gone.resolve();
        return;
      default: return;
    }
  }
  async #connect(): Promise<void> {
    const text = (key: string): string | undefined => {
      const value = this.#xs.read(`${this.frontPath}/${key}`);
      return value === undefined || value.length > 64 ? undefined : value;
    };
    const number = (key: string, least: number, most: number, otherwise?: number): number => {
      const value = text(key);
      if (value === undefined && otherwise !== undefined) return otherwise;
      const n = value !== undefined && /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
      if (!(n >= least && n <= most)) throw new FrontRefusal(`the front end's ${key} is ${value === undefined ? "missing" : `"${value}"`}; a number from ${least} to ${most} is wanted`);
      return n;
    };
    try {
      await this.driver.connect({ text, number });
      this.#isConnected = true;
      this.#setState(XenbusState.Connected);
    } catch (e) {
      if (!(e instanceof FrontRefusal)) throw e;
      await this.#fail(e.message);
    }
  }
  async #disconnect(): Promise<void> {
    this.#isConnected = false;
    await this.driver.disconnect();
  }
  /** The guest's end is beyond use: close, say why, and wait for it to begin anew. */
  async #fail(reason: string): Promise<void> {
    if (this.#isClosed) return;
    const why = reason.replace(/[^ -~]/g, "?");       // the guest's words may stand in it; they shall not command a terminal
    if (++this.#nrComplaints <= COMPLAINTS) this.#log(`${this.name}: ${why}; the device is closed${this.#nrComplaints === COMPLAINTS ? " (no more is said of it)" : ""}`);
    this.#xs.write(`${this.#errorPath}/error`, why);
    this.#setState(XenbusState.Closing);
    await this.#disconnect();
  }

  /**
   * Let go of the rings as they are, when what the guest has asked is answered, and follow the front end no more: the guest does not run, and is to find its device so when it goes on,
   * here (`goOn`) or elsewhere. The store says nothing of it.
   */
  async hold(): Promise<void> {
    this.#isHeld = true;
    await this.#running;
    if (this.#isClosed || !this.#isConnected) return;
    this.#wasConnected = true;
    await this.#disconnect();
  }
  /** After `hold`: take the rings up where they were left. */
  async goOn(): Promise<void> {
    this.#isHeld = false;
    if (this.#wasConnected && !this.#isClosed) await this.#connect();
    this.#wasConnected = false;
    await this.poll();
  }

  /** Ask the front end to let go, as a detach does; several may ask. @returns true when it has; false after `timeoutMs`: the device is its own as before */
  async detach(timeoutMs: number): Promise<boolean> {
    if (this.#isClosed) return true;
    if (this.#nrDetaching++ === 0) {
      this.#gone = Promise.withResolvers<void>();       // an earlier one may tell of an earlier connection
      this.#isLeaving = true;
      this.#xs.write(`${this.path}/online`, "0");
      if (this.#isConnected) this.#setState(XenbusState.Closing);
      else this.#gone.resolve();
      void this.poll();
    }
    const done = await within(this.#gone.promise, timeoutMs);
    if (--this.#nrDetaching === 0 && !done && !this.#isClosed) {
      this.#isLeaving = false;
      this.#xs.write(`${this.path}/online`, "1");
    }
    return done;
  }
  /** End it, whatever the front end does: the domain is going, or the front end has let go. */
  async close(): Promise<void> {
    if (this.#isClosed) return this.#endLinger?.();
    await this.#leave();
    await this.#disconnect();
    this.#gone.resolve();
  }
  async #leave(): Promise<void> {
    this.#watch[Symbol.dispose]();
    this.#isClosed = true;
    await this.#running;
    this.#xs.remove(this.#errorPath);
  }
  /**
   * Take the device away, after a `detach` or without. From here on the host's side of it is free, and the front end gets errors, for as long as it has not closed its event
   * channel and at most LINGER_MS; `close` cuts that short. Its nodes are the caller's to remove, which is what it hears.
   * Linux's blkfront needs that even when it has said Closed: by then it has stopped its queues, del_gendisk waits for what was caught in them, and an event starts them again.
   * @returns once the host's side is free; `gone` when the front end has let go or the time is over
   */
  async takeAway(): Promise<{ readonly gone: Promise<void> }> {
    if (this.#isClosed) return { gone: Promise.resolve() };
    await this.#leave();
    if (this.#isConnected) await this.driver.refuse?.();
    const untilMs = performance.now() + LINGER_MS;
    const stop = Promise.withResolvers<void>();
    const gone = (async () => {
      let isEnded = false;
      while (!isEnded && this.#isConnected && this.driver.nudge?.() && performance.now() < untilMs) isEnded = await within(stop.promise, LINGER_LOOK_MS);
      await this.#disconnect();
      this.#gone.resolve();
    })();
    this.#endLinger = async () => {
      stop.resolve();
      await gone;
    };
    return { gone };
  }
}
