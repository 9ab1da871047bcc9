/** The machine's messages, as Xen keeps them in its console ring: what `xl dmesg` reads. */

const KEPT_BYTES = 256 << 10;

/** The last 256 KiB of lines, each with its time since the machine's start. */
export class Messages {
  readonly #startedMs = performance.now();
  readonly #told: ((line: string) => void) | undefined;
  #lines: string[] = [];
  #bytes = 0;
  /** @param told each line, for a log outside */
  constructor(told?: (line: string) => void) { this.#told = told; }
  /** Say it, a line or several; control characters cannot command a terminal. */
  say(text: string, prefix = "(XEN) "): void {
    for (const part of text.split("\n")) {
      const line = `${prefix}[${((performance.now() - this.#startedMs) / 1000).toFixed(6).padStart(13)}] ${part.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "?")}`;
      this.#lines.push(line);
      this.#bytes += line.length + 1;
      while (this.#bytes > KEPT_BYTES) this.#bytes -= this.#lines.shift()!.length + 1;
      this.#told?.(part);
    }
  }
  get text(): string { return this.#lines.map((l) => `${l}\n`).join(""); }
  clear(): void {
    this.#lines = [];
    this.#bytes = 0;
  }
}
