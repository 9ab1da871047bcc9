/** A domain in the page, through all its lives: its configuration, its terminal, and what can be done with it. */
import { signal } from "@preact/signals";
import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Terminal } from "@xterm/xterm";
import { UserError } from "../base/errors.ts";
import type { CheckedConfig } from "../toolstack/config.ts";
import { type CrashReport, crashText } from "../toolstack/crash.ts";
import { closeDisks } from "../toolstack/disks.ts";
import type { Domain, DomainEnd } from "../toolstack/domain.ts";
import type { Machine } from "../toolstack/machine.ts";
import { type Progress, saveDomain, type SaveReport } from "../toolstack/save.ts";
import { superviseDomain } from "../toolstack/supervise.ts";

/** What a saved state says of its domain, for `resume`: the text it was made from, and what was chosen for it. */
export type SavedConfig = { readonly domus: 1; readonly text: string; readonly uuid: string; readonly macs: readonly string[] };
/** building: its image is read and laid out. ended: nothing of it is left but its terminal. */
export type SessionState = "building" | "running" | "paused" | "ended";
/** What waits for the terminal at most: beyond it the guest waits for the next frame, so that a flood leaves the page its frames. */
const PENDING_BYTES = 48 << 10;
const encoder = new TextEncoder();
/** A page that is hidden draws no frames. */
const nextFrame = (): Promise<void> => new Promise((done) => {
  requestAnimationFrame(() => done());
  document.addEventListener("visibilitychange", () => done(), { once: true });
});
let nrSessions = 0;

/** One domain's place in the page; it outlives the domain, so that its last words can be read. */
export class Session {
  /** no other session of the page has it, whatever its name */
  readonly id = nrSessions++;
  readonly name: string;
  /** the xl.cfg it was made from, to be shown and used again */
  readonly text: string;
  readonly terminal = new Terminal({ scrollback: 10_000, fontSize: 13, lineHeight: 1.15, fontFamily: "ui-monospace, 'Cascadia Mono', 'JetBrains Mono', 'DejaVu Sans Mono', Menlo, Consolas, monospace", cursorBlink: false, allowProposedApi: true });
  readonly fit = new FitAddon();
  readonly search = new SearchAddon();
  readonly state = signal<SessionState>("building");
  readonly domain = signal<Domain | null>(null);
  /** how the last life ended, in words */
  readonly ending = signal("");
  readonly crash = signal<CrashReport | null>(null);
  /** something was said since somebody looked */
  readonly isUnread = signal(false);
  isShown = false;
  readonly #machine: Machine;
  readonly #stop = new AbortController();
  #typeTo: WritableStreamDefaultWriter<Uint8Array> | null = null;
  #config: CheckedConfig | null = null;
  #isSaved = false;
  #hiddenBytes = 0;
  #pendingBytes = 0;

  constructor(machine: Machine, name: string, text: string) {
    this.#machine = machine;
    this.name = name;
    this.text = text;
    this.terminal.loadAddon(this.fit);
    this.terminal.loadAddon(this.search);
    this.terminal.onData((data) => this.type(data));
    this.terminal.onBinary((data) => { void this.#typeTo?.write(Uint8Array.from(data, (c) => c.charCodeAt(0))).catch(() => {}); });
  }
  /** Type into its console. */
  type(text: string): void { void this.#typeTo?.write(encoder.encode(text)).catch(() => {}); }

  /** Run it to its end. @param first it exists already @returns how it ended; rejects when it cannot be made */
  async run(config: CheckedConfig, first?: Domain): Promise<DomainEnd> {
    this.#config = config;
    try {
      return await superviseDomain(this.#machine, config, {
        attach: (domain) => this.#attach(domain),
        ended: (_, end) => {
          this.ending.value = end.crash ? "crashed" : this.#isSaved ? "saved" : end.reason;
          this.crash.value = end.crash ?? null;
          if (end.crash) this.#note(crashText(this.name, end.crash).replaceAll("\n", "\r\n"));
        },
        notice: (text) => { if (!this.#isSaved) this.#note(text); },
        ...(first ? { first } : {}),
        signal: this.#stop.signal,
      });
    } catch (e) {
      if (!this.#stop.signal.aborted) throw e;
      return { reason: "destroyed" };
    } finally {
      this.domain.value = null;
      this.#typeTo = null;
      await closeDisks(config.disks, (text) => this.#note(text));
      this.#note(`${this.name}: ${this.ending.value || "destroyed"}`);
      this.state.value = "ended";
    }
  }
  #note(text: string): void { this.terminal.write(`\r\n\x1b[2m[${text}]\x1b[0m\r\n`); }

  async #attach(domain: Domain): Promise<void> {
    this.domain.value = domain;
    this.state.value = "running";
    this.#typeTo = domain.console.writable.getWriter();
    const reader = domain.console.readable.getReader(), seen = (): void => { if (!document.hidden) this.#showMissed(domain); };
    document.addEventListener("visibilitychange", seen);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      await this.#show(value);
    }
    document.removeEventListener("visibilitychange", seen);
    this.#showMissed(domain);
    this.#typeTo = null;
  }
  #showMissed(domain: Domain): void {
    const { backlog } = domain.views, missed = this.#hiddenBytes;
    if (missed === 0) return;
    this.#hiddenBytes = 0;
    if (missed > backlog.length) this.#note(`${missed - backlog.length} bytes passed while the page was hidden`);
    this.terminal.write(backlog.subarray(-missed));
  }
  /** While the page is hidden its timers hardly run: the guest goes on then, and what it said last is shown afterwards. */
  async #show(bytes: Uint8Array): Promise<void> {
    if (!this.isShown) this.isUnread.value = true;
    if (document.hidden) { this.#hiddenBytes += bytes.length; return; }
    this.#pendingBytes += bytes.length;
    this.terminal.write(bytes, () => { this.#pendingBytes -= bytes.length; });
    while (this.#pendingBytes >= PENDING_BYTES && !document.hidden) await nextFrame();
  }

  async pause(): Promise<void> {
    if (this.state.value !== "running") return;
    this.state.value = "paused";
    await this.domain.value?.pause();
  }
  unpause(): void {
    if (this.state.value !== "paused") return;
    this.state.value = "running";
    this.domain.value?.unpause();
  }
  /**
   * Write its state into `out`; it is gone from the machine then, and its disks are as it left them.
   * @throws UserError: it runs on
   */
  async save(out: WritableStream<Uint8Array>, progress: (p: Progress) => void = () => {}): Promise<SaveReport> {
    const domain = this.domain.value, config = this.#config;
    if (!domain || !config) throw new UserError(`${this.name} does not run`);
    const saved: SavedConfig = { domus: 1, text: this.text, uuid: domain.uuid, macs: config.vifs.map((v) => v.mac) };
    this.#isSaved = true;
    try { return await saveDomain(domain, out, { configJson: JSON.stringify(saved), progress }); } catch (e) {
      this.#isSaved = false;
      throw e;
    }
  }
  /** Ask the guest to go down. @returns false where it has not said that it understands */
  shutdown(request: "poweroff" | "reboot" = "poweroff"): boolean {
    if (this.state.value === "paused") this.unpause();
    return this.domain.value?.control.shutdown(request) ?? false;
  }
  /** Take it down at once, also while it is being built. */
  async destroy(): Promise<void> {
    this.#stop.abort();
    await this.domain.value?.destroy();
  }
  /** Give the terminal back; of a session that has ended. */
  dispose(): void { this.terminal.dispose(); }
}
