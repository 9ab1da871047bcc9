/** A guest of a machine in this process, spoken to by its console: for system tests that hold the machine's other end, too. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { DomainConfig } from "../src/toolstack/config.ts";
import type { Domain } from "../src/toolstack/domain.ts";
import type { Machine } from "../src/toolstack/machine.ts";
import { images } from "./guest.ts";

/** Long enough for a loaded machine; what takes longer hangs. */
const BOOT_MS = 300_000, COMMAND_MS = 120_000;

/** A domain whose shell reads commands. */
export class Talk {
  readonly domain: Domain;
  /** everything the console has said */
  out = "";
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #from = 0;
  #nrCommands = 0;
  #isEnded = false;
  #wake: () => void = () => {};

  /** @param before who spoke with this guest before it came here from a stream or another machine: its shell counts on */
  constructor(domain: Domain, before?: Talk) {
    this.domain = domain;
    if (before) this.#nrCommands = before.#nrCommands;
    this.#writer = domain.console.writable.getWriter();
    this.#writer.closed.catch(() => {});
    void (async () => {
      for await (const bytes of domain.console.readable) {
        this.out += Buffer.from(bytes).toString("latin1");
        this.#wake();
      }
      this.#isEnded = true;
      this.#wake();
    })();
  }

  /** Debian's cloud kernel, or its generic one, with the initramfs of `domus start`, and `config` beside; its init has loaded the front ends and asked for an address. */
  static async boot(machine: Machine, config: Omit<DomainConfig, "kernel" | "ramdisk">, flavour: "cloud" | "generic" = "cloud"): Promise<Talk> {
    const { kernel, ramdisk } = images(flavour);
    const talk = new Talk(await machine.createDomain({ cmdline: "console=hvc0 quiet", memoryMiB: 128, ...config, kernel: readFileSync(kernel), ramdisk: readFileSync(ramdisk) }));
    await talk.expect(/# (?:\x1b\[6n)?$/, BOOT_MS);
    // A loop in the shell's place: no prompt, no echo, and marks, typed with quotes in them so that an echo is no mark.
    talk.type(`stty -echo; while IFS= read -r l; do k=$((k+1)); echo "@@"begin $k; eval "$l" </dev/null 2>&1; echo "@@"end $k $?; done\n`);
    await talk.run("true");
    return talk;
  }

  /** Wait until the console says it, after what was waited for before. */
  async expect(pattern: RegExp, timeoutMs = COMMAND_MS): Promise<RegExpExecArray> {
    let isLate = false;
    const timer = setTimeout(() => { isLate = true; this.#wake(); }, timeoutMs);
    try {
      for (;;) {
        const match = pattern.exec(this.out.slice(this.#from));
        if (match) { this.#from += match.index + match[0].length; return match; }
        if (isLate || this.#isEnded) throw new Error(`${this.domain.name} ${isLate ? `did not say within ${timeoutMs} ms` : "ended before"} ${pattern}. Its last words:\n${this.out.slice(-2000)}`);
        await new Promise<void>((resolve) => { this.#wake = resolve; });
      }
    } finally {
      clearTimeout(timer);
    }
  }
  type(text: string): void { void this.#writer.write(Buffer.from(text, "latin1")).catch(() => {}); }

  /** Begin a line of the shell. @returns what waits for its end: its output without the last line end, and its exit code */
  begin(command: string): () => Promise<{ out: string; code: number }> {
    const nr = ++this.#nrCommands;
    this.type(`${command}\n`);
    return async () => {
      await this.expect(new RegExp(`@@begin ${nr}\\r?\\n`));
      const [, out, code] = await this.expect(new RegExp(`([^]*?)@@end ${nr} (\\d+)\\r?\\n`));
      return { out: out!.replaceAll("\r\n", "\n").trimEnd(), code: Number(code) };
    };
  }
  /** Run a line that may fail. */
  run(command: string): Promise<{ out: string; code: number }> { return this.begin(command)(); }
  /** Run a line that must succeed. @returns its output */
  async ok(command: string): Promise<string> {
    const { out, code } = await this.run(command);
    assert.equal(code, 0, `${this.domain.name}: "${command}" ended with ${code}:\n${out}`);
    return out;
  }
  /** Ask again until the line succeeds: for what the guest does in its own time. */
  async until(condition: string): Promise<string> { return this.ok(`n=0; until { ${condition}; }; do n=$((n+1)); [ $n -lt 300 ] || break; usleep 100000; done; ${condition}`); }
}
