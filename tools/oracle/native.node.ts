/** The native subject: builds native.c with the C compiler and keeps one such process. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { UserError } from "../../src/base/errors.ts";
import { type Batch, RESULT, type Subject } from "./format.ts";

/** Build the harness unless it is newer than its source. Returns its path. */
export function buildNative(): string {
  if (process.arch !== "x64" || process.platform !== "linux") throw new UserError("The native oracle needs Linux on x86-64");
  const source = join(import.meta.dirname, "native.c"), dir = join(tmpdir(), `domus-oracle-${userInfo().uid}`), program = join(dir, "native");
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return program;
  mkdirSync(dir, { recursive: true });
  try {
    execFileSync("gcc", ["-O2", "-Wall", "-fpie", "-pie", "-fcf-protection=none", "-o", program, source], { stdio: ["ignore", "ignore", "pipe"] });
  } catch (e) {
    throw new UserError(`The C compiler could not build the native oracle (is gcc installed?): ${(e as Error).message}`);
  }
  return program;
}

/** Whether this machine can be the oracle: Linux on x86-64 with a C compiler. */
export function nativeMissing(): string | false {
  try { buildNative(); return false; } catch (e) { return (e as Error).message; }
}

/** What CPUID leaf 0 calls the maker of this machine's processor ("GenuineIntel", "AuthenticAMD"), or "" where that cannot be read. */
export function hostVendor(): string {
  try { return /^vendor_id\s*:\s*(\S+)/m.exec(readFileSync("/proc/cpuinfo", "latin1"))?.[1] ?? ""; } catch { return ""; }
}

export class Native implements Subject {
  readonly name = "native";
  readonly vendor = hostVendor();
  #child: ChildProcess;
  #want: { into: Uint8Array<ArrayBuffer>; at: number; done: (r: Uint8Array<ArrayBuffer>) => void; fail: (e: Error) => void } | null = null;
  constructor() {
    this.#child = spawn(buildNative(), { stdio: ["pipe", "pipe", "inherit"] });
    this.#child.stdin!.on("error", () => {});
    this.#child.stdout!.on("data", (chunk: Buffer) => {
      const w = this.#want;
      if (!w) return;
      w.into.set(chunk, w.at);
      w.at += chunk.length;
      if (w.at === w.into.length) { this.#want = null; w.done(w.into); }
    });
    this.#child.on("exit", (code, signal) => this.#want?.fail(new Error(`The native oracle ended in the middle of a batch (${signal ?? `code ${code}`})`)));
  }
  run(batch: Batch): Promise<Uint8Array<ArrayBuffer>> {
    return new Promise((done, fail) => {
      this.#want = { into: new Uint8Array(batch.nrCases * RESULT.sizeof), at: 0, done, fail };
      this.#child.stdin!.write(batch.bytes);
    });
  }
  close(): void { this.#child.stdin!.end(); }
}
