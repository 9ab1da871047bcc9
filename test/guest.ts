/** A guest behind a console, driven as a person would drive it: for system tests and benchmarks. The program may be ours or QEMU. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The repository's root, with a slash at its end. */
export const root = fileURLToPath(new URL("..", import.meta.url));
export const domus = `${root}bin/domus`;

/** Files that a guest is started from. */
export type Images = { readonly kernel: string; readonly ramdisk: string };

/** Debian's kernel and the shell's initramfs, by the fetch of `npm start`; it fetches once and keeps. @throws with the command's words where it cannot */
export function images(flavour: "cloud" | "generic" = "cloud"): Images {
  const args = [domus, "start", "--fetch", "--quiet", ...(flavour === "generic" ? ["--generic"] : [])];
  const [kernel, ramdisk] = execFileSync(process.execPath, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim().split("\n");
  return { kernel: kernel!, ramdisk: ramdisk! };
}

/** Why those images cannot be had here, or false. Fetching that fails where there is apt is an error, not a reason. */
export function imagesMissing(): string | false {
  try { execFileSync("apt-get", ["--version"], { stdio: "ignore" }); return false; } catch { return "Debian's kernels are fetched with apt-get, which is not here"; }
}

/** What a process and its descendants hold or have held at most, in MiB: VmHWM, proc(5). Pages that two of them share count twice. */
export function peakMemoryMiB(pid: number): number {
  try {
    const kib = Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean);
    return children.reduce((sum, child) => sum + peakMemoryMiB(Number(child)), kib / 1024);
  } catch { return 0; }
}

export type Exit = { readonly code: number | null; readonly signal: NodeJS.Signals | null };
/** A piece of the console with the time at which its last byte came. */
export type Seen = { readonly match: RegExpExecArray; readonly atMs: number };

/** A spawned program whose stdin and stdout are a guest's console. */
export class Guest implements AsyncDisposable {
  /** those whose programs run: whoever is interrupted ends them */
  static readonly running = new Set<Guest>();
  readonly child: ChildProcess;
  readonly startedMs = performance.now();
  readonly exit: Promise<Exit>;
  /** everything the console has said, and everything on stderr */
  out = "";
  err = "";
  #from = 0;
  #nrCommands = 0;
  #wake: () => void = () => {};
  #gone: Exit | null = null;

  constructor(program: string, args: readonly string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}) {
    this.child = spawn(program, args, { ...options, stdio: ["pipe", "pipe", "pipe"] });
    Guest.running.add(this);
    this.child.stdout!.setEncoding("latin1").on("data", (text: string) => { this.out += text; this.#wake(); });
    this.child.stderr!.setEncoding("utf8").on("data", (text: string) => { this.err += text; });
    this.child.stdin!.on("error", () => {});
    this.exit = new Promise((resolve, reject) => {
      const over = (exit: Exit) => { Guest.running.delete(this); this.#gone = exit; this.#wake(); };
      this.child.on("error", (e) => { this.err += e.message; over({ code: 127, signal: null }); reject(e); });
      this.child.on("close", (code, signal) => { over({ code, signal }); resolve({ code, signal }); });
    });
    this.exit.catch(() => {});
  }

  /** Wait until the console says it, after what was waited for before. */
  async expect(pattern: RegExp, timeoutMs: number): Promise<Seen> {
    const until = performance.now() + timeoutMs;
    for (;;) {
      const match = pattern.exec(this.out.slice(this.#from));
      if (match) { this.#from += match.index + match[0].length; return { match, atMs: performance.now() }; }
      const left = until - performance.now(), what = this.#gone ? `ended with ${this.#gone.code ?? this.#gone.signal} before` : left <= 0 ? `did not say within ${timeoutMs} ms` : null;
      if (what !== null) throw new Error(`The guest ${what} ${pattern}. Its last words:\n${this.out.slice(-2000)}\n${this.err.slice(-3000)}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => { clearTimeout(timer); resolve(); };
      });
    }
  }

  /** The guest that spoke through another program speaks through this one now: its shell counts on. */
  follows(before: Guest): void { this.#nrCommands = before.#nrCommands; }
  write(text: string): void { this.child.stdin!.write(text, "latin1"); }

  /**
   * Put a loop in the shell's place that reads commands and says where each one's output begins and ends, by its number: no prompt, no echo. The marks are typed with
   * quotes in them, so that an echo is no mark.
   */
  async takeShell(timeoutMs: number): Promise<void> {
    await this.expect(/# (?:\x1b\[6n)?$/, timeoutMs);
    this.write(`stty -echo; k=0; while IFS= read -r l; do k=$((k+1)); echo "@@"begin $k; eval "$l" </dev/null 2>&1; echo "@@"end $k $?; done\n`);
    await this.run("true", timeoutMs);
  }

  /** Run a line of the shell. @returns its output, line ends as \n, and its exit code */
  async run(command: string, timeoutMs = 60_000): Promise<{ out: string; code: number; ms: number }> {
    const nr = ++this.#nrCommands;
    this.write(`${command}\n`);
    const begin = await this.expect(new RegExp(`@@begin ${nr}\\r?\\n`), timeoutMs);
    const end = await this.expect(new RegExp(`([^]*?)@@end ${nr} (\\d+)\\r?\\n`), timeoutMs);
    return { out: end.match[1]!.replaceAll("\r\n", "\n"), code: Number(end.match[2]), ms: end.atMs - begin.atMs };
  }

  /** Until the program has ended by itself. */
  async ended(timeoutMs: number): Promise<Exit> {
    const timer = setTimeout(() => this.child.kill("SIGKILL"), timeoutMs);
    try { return await this.exit; } finally { clearTimeout(timer); }
  }

  /** End the program, by force if it does not go. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#gone) return;
    this.child.kill("SIGTERM");
    this.child.kill("SIGCONT");      // a stopped program hears of its end only when it goes on
    await this.ended(5000).catch(() => {});
  }
}

/** An xl.cfg's text. */
export const xlCfg = (name: string, { kernel, ramdisk }: Images, memoryMiB: number, extra = "console=hvc0"): string =>
  `name = "${name}"\ntype = "pvh"\nkernel = "${kernel}"\nramdisk = "${ramdisk}"\nextra = '${extra}'\nmemory = ${memoryMiB}\n`;

/** Arguments for QEMU's TCG, with the same kernel, initramfs and memory, one CPU. */
export const qemuArgs = ({ kernel, ramdisk }: Images, memoryMiB: number, append = "console=ttyS0", cpu = "qemu64", accel = "tcg"): string[] =>
  ["-accel", accel, "-cpu", cpu, "-smp", "1", "-m", String(memoryMiB), "-nographic", "-no-reboot", "-nic", "none", "-kernel", kernel, "-initrd", ramdisk, "-append", append];
/** The peer's program. */
export const QEMU = "qemu-system-x86_64";
