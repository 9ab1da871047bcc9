/** Programs of the system, run for a command that can be ended in the middle: each in a process group of its own, which ends as a whole. */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { UserError } from "../base/errors.ts";

/** Where system programs stand though a user's PATH may leave them out. */
const SYSTEM = ["/usr/sbin", "/sbin"];
const searchPath = (): string[] => [...(process.env["PATH"] ?? "/usr/bin:/bin").split(delimiter).filter((d) => d !== ""), ...SYSTEM];

/** The path of a program, or null. */
export function findProgram(name: string): string | null {
  for (const folder of searchPath()) {
    const path = join(folder, name);
    try { accessSync(path, constants.X_OK); if (statSync(path).isFile()) return path; } catch { /* not here */ }
  }
  return null;
}
/** @throws UserError naming the Debian package of each program that is missing */
export function needPrograms(packages: Readonly<Record<string, string>>): void {
  const missing = Object.keys(packages).filter((name) => !findProgram(name)), wanted = [...new Set(missing.map((name) => packages[name]!))];
  if (missing.length) throw new UserError(`${missing.join(" and ")} ${missing.length > 1 ? "are" : "is"} not installed here; on Debian: apt-get install ${wanted.join(" ")}`);
}

export type Ran = { readonly code: number; readonly out: string; readonly err: string };
/** No program here says more that anyone reads. */
const MAX_TEXT = 1 << 20;
const GRACE_MS = 20_000;

export class Programs {
  readonly #signal: AbortSignal;
  readonly #children = new Set<ChildProcess>();
  readonly #env: NodeJS.ProcessEnv;

  /** @param signal when it aborts, what runs is ended and its call fails with the signal's reason */
  constructor(signal: AbortSignal, env: Readonly<Record<string, string>> = {}) {
    this.#signal = signal;
    this.#env = { ...process.env, PATH: searchPath().join(delimiter), LC_ALL: "C", ...env };
    process.on("exit", () => this.#end("SIGKILL"));
    signal.addEventListener("abort", () => {
      this.#end("SIGTERM");
      setTimeout(() => this.#end("SIGKILL"), GRACE_MS).unref();
    });
  }
  #end(how: NodeJS.Signals): void {
    for (const child of this.#children) try { process.kill(-child.pid!, how); } catch { /* it has ended */ }
  }

  /** Run a program to its end. `line` is told each line of its stderr as it comes. `evenIfAborted`: to clean up. */
  async run(program: string, args: readonly string[], more: { input?: string; cwd?: string; line?: (text: string) => void; evenIfAborted?: boolean } = {}): Promise<Ran> {
    if (!more.evenIfAborted) this.#signal.throwIfAborted();
    const ran = await new Promise<Ran>((done, fail) => {
      const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], detached: true, env: this.#env, ...(more.cwd === undefined ? {} : { cwd: more.cwd }) });
      let out = "", err = "", rest = "";
      if (child.pid !== undefined) this.#children.add(child);
      child.stdout.setEncoding("utf8").on("data", (text: string) => { out = (out + text).slice(-MAX_TEXT); });
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        err = (err + text).slice(-MAX_TEXT);
        const lines = (rest + text).split(/[\r\n]/);
        rest = lines.pop()!.slice(-MAX_TEXT);
        if (more.line) lines.forEach(more.line);
      });
      child.stdin.on("error", () => { /* it ended without reading all */ });
      child.stdin.end(more.input ?? "");
      child.on("error", (e: NodeJS.ErrnoException) => fail(e.code === "ENOENT" ? new UserError(`${program} is not installed here`) : e));
      child.on("close", (code) => { this.#children.delete(child); done({ code: code ?? 1, out, err }); });
    });
    if (!more.evenIfAborted) this.#signal.throwIfAborted();
    return ran;
  }
  /** Run a program that must succeed. @throws UserError with what it said */
  async must(what: string, program: string, args: readonly string[], more: { input?: string; cwd?: string; line?: (text: string) => void } = {}): Promise<string> {
    const { code, out, err } = await this.run(program, args, more);
    if (code === 0) return out;
    const lines = err.trim().split(/[\r\n]+/), telling = lines.filter((l) => /^(?:E|Err):|\berror\b|cannot|could not|not found|no such|no space/i.test(l)).slice(-6);
    throw new UserError(`${what} failed: ${(telling.length ? telling : lines.slice(-3)).join("\n  ") || `${program} ended with ${code}`}`);
  }
}
