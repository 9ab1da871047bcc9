/** The host's machine: found again or started, followed through its events, and mourned when it dies. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ApiClient } from "../../api/client.node.ts";
import type { EventLog, HostEvent } from "../../api/events.ts";
import { ApiFault } from "../../api/fault.ts";
import type { LibxlConfig } from "../../toolstack/libxl-json.ts";
import type { Log } from "../log.ts";
import type { HostPaths } from "../paths.ts";
import { startOf, startProgram } from "./processes.ts";
import type { HostState, MachineRow } from "./state.ts";

/** The one machine that a host has. */
export const MACHINE = "default";
/** The setting with options for the machine's next start. They become "machine", those of every start, when a machine has started with them. */
const WISHED = "machine.wished";
/** A machine that dies sooner than this after its start, so often in a row, is not started again. */
const SHORT_LIFE_MS = 10_000, MAX_SHORT_LIVES = 3;
const RETRY_MS = 200;

/** Keeps one machine there: finds it, starts it, follows it. */
export class MachineKeeper {
  readonly #state: HostState;
  readonly #paths: HostPaths;
  readonly #events: EventLog;
  readonly #log: Log;
  #row: MachineRow | null = null;
  #client: ApiClient | null = null;
  /** settles when there is a machine to ask, or it is known that there will be none */
  #ready = Promise.withResolvers<void>();
  #isStarting = true;
  #shortLives = 0;
  #why = "";
  #isEnding = false;
  #stop = new AbortController();

  constructor(state: HostState, paths: HostPaths, events: EventLog, log: Log) {
    this.#state = state;
    this.#paths = paths;
    this.#events = events;
    this.#log = log;
    this.#ready.promise.catch(() => {});
  }
  get row(): MachineRow | null { return this.#row; }
  get state(): "starting" | "running" | "lost" { return this.#client ? "running" : this.#isStarting ? "starting" : "lost"; }
  /** To ask the machine. @throws ApiFault where there is none */
  async client(): Promise<ApiClient> {
    if (!this.#client) await this.#ready.promise;
    if (!this.#client) throw new ApiFault("unreachable", `There is no machine: ${this.#why}`);
    return this.#client;
  }

  /** Options for its next start, and those after it when that succeeds. */
  wish(options: readonly string[]): void { this.#state.putSetting(WISHED, JSON.stringify(options)); }
  /** Find the machine of an earlier daemon, or start one. */
  async begin(): Promise<void> {
    const left = this.#state.machines().find((m) => m.name === MACHINE);
    if (left && startOf(left.pid) === left.pidStart) {
      this.#log("info", `The machine lives still, process ${left.pid}`);
      return this.#take(left);
    }
    if (left) this.#mourn(left, "it had died while no domusd ran");
    await this.start();
  }
  /** Start a machine. What cannot be started is told of to whoever asks. */
  async start(): Promise<void> {
    this.#isStarting = true;
    try {
      const { run, state } = this.#paths, socket = join(run, `machine-${MACHINE}.sock`), xenstore = join(run, "xenstore"), wished = this.#state.setting(WISHED) || null;
      const given = JSON.parse(wished ?? this.#state.setting("machine") ?? "[]") as string[];
      this.#state.putSetting(WISHED, "");        // tried once
      const rowOf = (pid: number, pidStart: string): MachineRow => ({ name: MACHINE, pid, pidStart, socket, xenstore, startedMs: Date.now() });
      const { pid, pidStart, ended } = await startProgram("machined", ["--state", state, "--socket", socket, "--xenstore", xenstore, ...given], join(state, `machine-${MACHINE}.log`),
        (pid, pidStart) => this.#state.putMachine(rowOf(pid, pidStart)));       // before it is ready: we may be gone by then
      const row = rowOf(pid, pidStart);
      if (wished !== null) this.#state.putSetting("machine", wished);
      this.#log("info", `A machine was started, process ${pid}`);
      this.#events.emit({ kind: "machine.started", name: MACHINE, text: `process ${pid}` });
      void ended.then((how) => this.#died(row, how));
      await this.#take(row);
    } catch (e) {
      this.#isStarting = false;
      this.#why = (e as Error).message;
      if (!this.#isEnding) this.#log("error", `No machine: ${this.#why}`);
      this.#ready.resolve();
    }
  }
  /** Ask from now on this one. */
  async #take(row: MachineRow): Promise<void> {
    const client = new ApiClient({ socketPath: row.socket }), ready = Promise.withResolvers<void>();
    this.#row = row;
    void this.#follow(row, client, () => ready.resolve());
    await ready.promise;
    if (this.#row !== row) return;       // it died at once
    this.#client = client;
    this.#isStarting = false;
    this.#ready.resolve();
  }

  /** Hear the machine's events until it is gone; write down what becomes of its domains. */
  async #follow(row: MachineRow, client: ApiClient, ready: () => void): Promise<void> {
    let since = 0;
    for (let isCompared = false; this.#row === row && !this.#stop.signal.aborted;) {
      try {
        const events = client.events({ since, signal: this.#stop.signal });
        if (!isCompared) await this.#compare(client, row);
        isCompared = true;
        for await (const e of this.#announcing(events, ready)) {
          if (e.seq <= since) continue;
          since = e.seq;
          await this.#note(client, row, e).catch((x) => this.#log("warn", `An event was not written down: ${(x as Error).message}`, { event: e }));
          const { seq: _, ...event } = e;
          this.#events.emit(event);
        }
      } catch { /* it is busy, or gone: seen below */ }
      if (this.#stop.signal.aborted) break;
      if (startOf(row.pid) !== row.pidStart) { this.#died(row, "it has ended"); ready(); return; }
      await sleep(RETRY_MS);
    }
    ready();
  }
  /** As soon as the connection stands, the machine can be asked. */
  async *#announcing(events: AsyncGenerator<HostEvent>, ready: () => void): AsyncGenerator<HostEvent> {
    const first = events.next();
    ready();
    for (let got = await first; !got.done; got = await events.next()) yield got.value;
  }
  /** After a time without a daemon: what is there now, and what is there no more. */
  async #compare(client: ApiClient, row: MachineRow): Promise<void> {
    const domains = (await client.call("domain.list", {})).filter((d) => d.domid !== 0), alive = new Set(domains.map((d) => d.uuid));
    for (const d of this.#state.domains().filter((d) => d.machine === row.name && d.state !== "lost" && !alive.has(d.uuid))) {
      this.#log("info", `Domain ${d.name} has ended while no domusd ran`, { uuid: d.uuid });
      this.#state.dropDomain(d.uuid);
    }
    for (const d of domains) await this.#write(client, row, d.domid, d.uuid, d.name);
  }
  async #write(client: ApiClient, row: MachineRow, domid: number, uuid: string, name: string): Promise<void> {
    try {
      const config = (await client.call("domain.config", { domain: domid })) as LibxlConfig;
      this.#state.putDomain({ uuid, name, domid, machine: row.name, state: "running", config });
    } catch (e) {
      if (!(e instanceof ApiFault && (e.code === "notfound" || e.code === "gone"))) throw e;        // it has ended meanwhile: an event says so
    }
  }
  async #note(client: ApiClient, row: MachineRow, e: HostEvent): Promise<void> {
    if (e.uuid === undefined || e.domid === undefined) return;
    if (e.kind === "domain.died" && !/restart$/.test(e.action ?? "")) this.#state.dropDomain(e.uuid);
    else if (e.kind === "domain.created" || e.kind === "domain.started" || e.kind === "domain.renamed" || e.kind === "domain.changed") await this.#write(client, row, e.domid, e.uuid, e.name ?? "");
  }

  #died(row: MachineRow, how: string): void {
    if (this.#row !== row) return;
    this.#row = null;
    this.#client = null;
    this.#ready = Promise.withResolvers();
    this.#ready.promise.catch(() => {});
    if (this.#isEnding) { this.#noted(() => this.#state.dropMachine(row.name)); return; }
    this.#noted(() => this.#mourn(row, how));
    this.#shortLives = Date.now() - row.startedMs < SHORT_LIFE_MS ? this.#shortLives + 1 : 0;
    if (this.#shortLives < MAX_SHORT_LIVES) { void this.start(); return; }
    this.#isStarting = false;
    this.#why = `it died ${MAX_SHORT_LIVES} times within ${SHORT_LIFE_MS / 1000} s of its start; its words are in ${join(this.#paths.state, `machine-${MACHINE}.log`)}`;
    this.#ready.resolve();
  }
  /** Write something down; a disk that is full is told of, and what is asked of the host is answered all the same. */
  #noted(write: () => void): void { try { write(); } catch (e) { this.#log("error", `It cannot be written down: ${(e as Error).message}`); } }
  /** Say truthfully who died with it. */
  #mourn(row: MachineRow, how: string): void {
    const lost = this.#state.lose(row.name, how);
    this.#state.dropMachine(row.name);
    this.#log("error", `The machine, process ${row.pid}, is lost: ${how}; with it ${lost.length === 0 ? "no domain" : lost.map((d) => d.name).join(", ")}`, { lost: lost.map((d) => d.uuid) });
    this.#events.emit({ kind: "machine.lost", name: row.name, text: how });
    for (const d of lost) this.#events.emit({ kind: "domain.lost", name: d.name, uuid: d.uuid, ...(d.domid === null ? {} : { domid: d.domid }), text: how });
  }

  /** End the machine and all its domains. @returns when its process is gone */
  async end(): Promise<void> {
    this.#isEnding = true;
    const row = this.#row ?? this.#state.machines().find((m) => m.name === MACHINE);       // it may be starting
    if (!row || startOf(row.pid) !== row.pidStart) return;
    try { process.kill(row.pid, "SIGTERM"); } catch { /* it went by itself */ }
    for (let i = 0; startOf(row.pid) === row.pidStart; i++) {
      if (i === 600) try { process.kill(row.pid, "SIGKILL"); } catch { /* gone */ }
      await sleep(50);
    }
    this.#noted(() => {
      this.#state.dropMachine(row.name);
      for (const d of this.#state.domains()) this.#state.dropDomain(d.uuid);
    });
  }
  /** Look away; the machine goes on. */
  close(): void { this.#stop.abort(); }
}
