/**
 * xenstore-ls, -read, -write, -rm, -exists, -list, -watch, -chmod: a function each, with the options, output and exit codes of Xen's tools of those names
 * (xenstore-*(1), and the tools themselves).
 */
import { lstatSync, mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { UserError } from "../base/errors.ts";
import { SocketServer } from "../xenstore/socket.node.ts";
import { type SocketAccess, SocketClient } from "../xenstore/socket-client.node.ts";
import type { Store } from "../xenstore/store.ts";
import { fromBytes, XsRefusal } from "../xenstore/wire.ts";
import { getopt, type GetoptOption } from "./getopt.ts";
import { escapeValue, unescapeValue } from "./xenstore-escape.ts";

/** What a tool has of the world. */
export type ToolWorld = {
  env: Readonly<Record<string, string | undefined>>;
  /** takes bytes, one a UTF-16 unit */
  out: (text: string) => void;
  /** takes a line without its newline */
  err: (line: string) => void;
  /** columns of the terminal that stdout is */
  columns?: number;
  /** ends a watch */
  signal?: AbortSignal;
};

/** Where `domus run --xenstore` serves and the tools look: XENSTORED_PATH as with Xen's, else a folder of the user's own. */
export function defaultSocketPath(env: ToolWorld["env"]): string {
  if (env["XENSTORED_PATH"]) return env["XENSTORED_PATH"];
  if (env["XENSTORED_RUNDIR"]) return join(env["XENSTORED_RUNDIR"], "socket");
  return join(env["XDG_RUNTIME_DIR"] || join(tmpdir(), `domus-${process.getuid?.() ?? 0}`), "xenstore");
}
/** Serve a store for the tools. @param path the socket; "": the default @throws UserError when it cannot be had */
export async function serveStore(store: Store, path: string, log?: (sentence: string) => void): Promise<SocketServer> {
  const chosen = path || defaultSocketPath(process.env);
  if (!path) makeOwnFolder(dirname(chosen));
  const server = new SocketServer(store, chosen, log ? { log } : {});
  await server.listen();
  if (!path) log?.(`xenstore is served at ${chosen}`);
  return server;
}
/** Make a folder for this user alone, if it is missing. In the folder for temporary files, where all may write, it must not be another's. */
function makeOwnFolder(folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    if (code !== "EEXIST") throw new UserError(`xenstore: the folder ${folder} cannot be made (${code})`);
    const stat = lstatSync(folder);
    if (dirname(folder) === tmpdir() && (!stat.isDirectory() || stat.uid !== process.getuid?.() || stat.mode & 0o077)) throw new UserError(`xenstore: ${folder} is not this user's own; remove it or give a path`);
  }
}

/** strerror(3) of xenstore's errors. */
const WORDS: Readonly<Record<string, string>> = {
  EINVAL: "Invalid argument", EACCES: "Permission denied", EEXIST: "File exists", EISDIR: "Is a directory", ENOENT: "No such file or directory",
  ENOMEM: "Cannot allocate memory", ENOSPC: "No space left on device", EIO: "Input/output error", ENOTEMPTY: "Directory not empty",
  ENOSYS: "Function not implemented", EROFS: "Read-only file system", EBUSY: "Device or resource busy", EAGAIN: "Resource temporarily unavailable",
  EISCONN: "Transport endpoint is already connected", E2BIG: "Argument list too long", EPERM: "Operation not permitted",
};
/** The tool ends: a line on stderr and the exit code. */
class Leave extends Error {
  readonly code: number;
  constructor(code: number, line: string) {
    super(line);
    this.code = code;
  }
}
/** What the tool did fails, in the store's words. */
async function orLeave<T>(doing: Promise<T>, line: string): Promise<T> {
  try {
    return await doing;
  } catch (e) {
    throw e instanceof XsRefusal ? new Leave(1, `${line}: ${WORDS[e.word]}`) : e;
  }
}
/** undefined where the store refuses. */
async function unlessRefused<T>(doing: Promise<T>): Promise<T | undefined> {
  try {
    return await doing;
  } catch (e) {
    if (e instanceof XsRefusal) return undefined;
    throw e;
  }
}
/** atoi(3) */
const toInteger = (s: string): number => Number(/^\s*([+-]?\d{1,9})/.exec(s)?.[1] ?? 0);
/** An argument's bytes, as text is written here: one UTF-16 unit a byte. */
const bytesOf = (arg: string): string => fromBytes(new TextEncoder().encode(arg));

type Run = { client: SocketClient; world: ToolWorld; words: readonly string[]; flags: ReadonlyMap<string, string>; say: (line: string) => void; write: (text: string) => void };
type Tool = {
  readonly usage: string;
  /** letters of options besides -h and -s */
  readonly options: string;
  /** how many words it wants; a sentence of usage otherwise */
  readonly wants: (nrWords: number) => boolean;
  readonly inTransaction: (nrWords: number) => boolean;
  /** @returns the exit code; what it writes comes out when the transaction has been done, also when it failed */
  readonly run: (r: Run, x: SocketAccess) => Promise<number>;
};

async function read({ words, flags, say, write }: Run, x: SocketAccess): Promise<number> {
  for (const path of words) {
    const value = await unlessRefused(x.readBytes(path));
    if (!value) { say(`couldn't read path ${path}`); return 1; }
    if (flags.has("p")) write(`${bytesOf(path)}: `);
    write(flags.has("R") ? fromBytes(value) : `${escapeValue(fromBytes(value))}\n`);
  }
  return 0;
}
async function writeValues({ words, flags, say }: Run, x: SocketAccess): Promise<number> {
  for (let i = 0; i < words.length; i += 2) {
    const given = bytesOf(words[i + 1]!), value = flags.has("R") ? given : unescapeValue(given);
    if (!(await unlessRefused(x.write(words[i]!, Uint8Array.from(value, (c) => c.charCodeAt(0))).then(() => true)))) { say(`could not write path ${words[i]}`); return 1; }
  }
  return 0;
}
async function rm({ words, flags, say }: Run, x: SocketAccess): Promise<number> {
  for (const word of words) {
    for (let path = word; ;) {
      if (!(await unlessRefused(x.remove(path).then(() => true)))) { say(`could not remove path ${path}`); return 1; }
      if (!flags.has("t") || !path.includes("/")) break;
      path = path.slice(0, path.lastIndexOf("/"));  // tidy: the parent too, where nothing is left in it
      if ((await unlessRefused(x.readBytes(path)))?.length !== 0 || (await unlessRefused(x.list(path)))?.length !== 0) break;
    }
  }
  return 0;
}
async function exists({ words }: Run, x: SocketAccess): Promise<number> {
  for (const path of words) if (!(await unlessRefused(x.readBytes(path)))) return 1;
  return 0;
}
async function list({ words, flags, say, write }: Run, x: SocketAccess): Promise<number> {
  for (const path of words) {
    const names = await unlessRefused(x.list(path));
    if (!names) { say(`could not list path ${path}`); return 1; }
    for (const name of names) write(`${flags.has("p") ? `${path === "/" ? "" : path}/` : ""}${name}\n`);
  }
  return 0;
}
async function ls({ words, flags, world }: Run, x: SocketAccess): Promise<number> {
  const whole = flags.has("f"), width = whole ? 2 ** 30 : world.columns === undefined ? 80 : world.columns - 2, wanted = whole ? 0 : 60;
  /** what stands around a value that is cut */
  const frame = ' = "..."'.length;
  /** as printf's "%.*s": no precision where it is negative */
  const cut = (s: string, most: number): string => (most < 0 ? s : s.slice(0, most));
  const show = async (path: string, depth: number): Promise<void> => {
    const names = await x.list(path).catch((e) => {
      if (e instanceof XsRefusal && e.word === "ENOENT" && depth > 0) return [];  // it went while we looked
      return orLeave<string[]>(Promise.reject(e), `xs_directory (${path})`);
    });
    for (const name of names) {
      const below = `${path}${path.endsWith("/") ? "" : "/"}${name}`, value = await unlessRefused(x.readBytes(below));
      let line = whole ? below : " ".repeat(depth) + cut(name, width - frame - depth);
      const used = whole ? 0 : line.length;
      if (!value) line += ":\n";
      else if (width < used + value.length + frame) line += ` = "${cut(escapeValue(fromBytes(value)), width - frame - used)}\\..."`;
      else {
        const shown = ` = "${escapeValue(fromBytes(value))}"`;
        line += shown;
        if (flags.has("p")) {
          line += " ";
          for (let at = used + shown.length + 1; at < Math.min(wanted, width); at++) line += at & 1 ? "." : " ";
        }
      }
      if (flags.has("p")) {
        const perms = await unlessRefused(x.perms(below));
        if (perms) line += `  (${perms.join(",")})`;
      }
      world.out(`${line}\n`);
      await show(below, depth + 1);
    }
  };
  for (const path of words.length ? words : ["/"]) await show(path, 0);
  return 0;
}
async function chmod({ words: [path, ...modes], flags }: Run, x: SocketAccess): Promise<number> {
  const perms = modes.map((mode) => {
    if (!"nrwb".includes(mode[0] ?? "-")) throw new Leave(1, `Invalid permission specification: '${mode[0] ?? ""}'`);
    return `${mode[0]}${toInteger(mode.slice(1)) >>> 0}`;
  });
  const set = (p: string): Promise<void> => orLeave(x.setPerms(p, perms), `Error occurred setting permissions on '${p}'`);
  const below = async (p: string): Promise<void> => {
    for (const name of (await unlessRefused(x.list(p))) ?? []) {
      const child = `${p}/${name}`;
      await set(child);
      await below(child);
    }
  };
  if (path === "") return 0;
  await set(path!);
  if (flags.has("u")) {
    for (let p = path!; p !== ""; ) {
      if (!p.includes("/")) throw new Leave(1, `Unable to locate path separator '/' in '${p}'`);
      p = p.slice(0, p.lastIndexOf("/"));
      if (p !== "") await set(p);
    }
  }
  if (flags.has("r")) await below(path!);
  return 0;
}
async function watch({ client, world, words, flags }: Run): Promise<number> {
  const most = flags.has("n") ? toInteger(flags.get("n")!) : -1, depth = flags.has("d") ? toInteger(flags.get("d")!) : -1;
  const enough = Promise.withResolvers<void>();
  let nrEvents = 0;
  if (most === 0) enough.resolve();
  const told = (path: string): void => {
    if (most >= 0 && nrEvents >= most) return;
    world.out(`${path}\n`);
    if (++nrEvents === most) enough.resolve();
  };
  for (const path of words) {
    if ((await unlessRefused(client.watch(path, told, depth < 0 ? undefined : depth))) === undefined) throw new Leave(1, `Unable to add watch on ${path}${depth < 0 ? "" : ` with depth ${depth}`}\n`);
  }
  world.signal?.addEventListener("abort", () => enough.resolve(), { once: true });
  if (world.signal?.aborted) enough.resolve();
  await Promise.race([enough.promise, client.closed.then(() => { throw new Leave(1, "the connection to the store is lost"); })]);
  return 0;
}

const some = (n: number): boolean => n > 0, always = (): boolean => true, never = (): boolean => false;
/** The tools, by what stands behind "xenstore-". */
export const XENSTORE_TOOLS: Readonly<Record<string, Tool>> = {
  read: { usage: "[-h] [-p] [-R] key [...]", options: "pR", wants: some, inTransaction: (n) => n > 1, run: read },
  write: { usage: "[-h] [-R] key value [...]", options: "R", wants: (n) => n > 0 && n % 2 === 0, inTransaction: (n) => n > 2, run: writeValues },
  rm: { usage: "[-h] [-t] key [...]", options: "t", wants: some, inTransaction: always, run: rm },
  exists: { usage: "[-h] key", options: "", wants: some, inTransaction: always, run: exists },
  list: { usage: "[-h] [-p] key [...]", options: "p", wants: some, inTransaction: always, run: list },
  ls: { usage: "[-h] [-f] [-p] [path]", options: "fp", wants: always, inTransaction: never, run: ls },
  chmod: { usage: "[-h] [-u] [-r] key <mode [modes...]>", options: "ur", wants: some, inTransaction: always, run: chmod },
  watch: { usage: "[-h] [-n NR] [-d DEPTH] key", options: "nd", wants: some, inTransaction: never, run: watch },
};
/** All tools know all options; what is not the tool's own ends in its usage. -s (the socket) is taken and means nothing, as with Xen's. */
const OPTIONS: readonly GetoptOption[] = [
  { short: "h", long: "help" }, { short: "f", long: "flat" }, { short: "s" }, { short: "p", long: "prefix" }, { short: "t", long: "tidy" }, { short: "u", long: "upto" },
  { short: "r", long: "recurse" }, { short: "n", long: "number", value: true }, { short: "R", long: "raw" }, { short: "d", long: "depth", value: true }, { long: "socket", value: true },
];

/** Run a tool. @param argv the name it was called by, and its arguments; "xenstore" takes the tool's name as the first. @returns the exit code */
export async function xenstoreTool(argv: readonly string[], world: ToolWorld): Promise<number> {
  const typed = argv[0] ?? "xenstore", program = typed.slice(typed.lastIndexOf("/") + 1), isNamed = program.startsWith("xenstore-");
  const say = (line: string): void => world.err(`${program}: ${line}`);
  try {
    if (!isNamed && argv.length < 2) throw new Leave(1, `Usage: ${typed} <mode> [-h] [...]`);
    const name = isNamed ? program.slice("xenstore-".length) : argv[1]!, tool = Object.hasOwn(XENSTORE_TOOLS, name) ? XENSTORE_TOOLS[name]! : undefined;
    if (!tool) throw new Leave(1, `unknown mode ${name}\n`);
    const usage = (code: number): Leave => new Leave(code, `Usage: ${typed} ${isNamed ? "" : `${name} `}${tool.usage}`);
    const { met, words } = getopt(argv.slice(isNamed ? 1 : 2), OPTIONS, say), flags = new Map<string, string>();
    for (const { name: option, value } of met) {
      if (option === "h") throw usage(0);
      if (!`s${tool.options}`.includes(option) && option !== "socket") throw usage(1);
      flags.set(option, value);
    }
    if (!tool.wants(words.length)) throw usage(1);
    using client = await SocketClient.connect(flags.get("socket") ?? defaultSocketPath(world.env)).catch((e) => {
      if (!(e instanceof UserError)) throw e;
      throw new Leave(1, e.message);
    });
    return await perform(tool, { client, world, words, flags, say, write: world.out });
  } catch (e) {
    if (!(e instanceof Leave)) throw e;
    say(e.message);
    return e.code;
  }
}
/** A tool that fails without leaving undoes its transaction. */
class Undone extends Error {}
async function perform(tool: Tool, r: Run): Promise<number> {
  if (!tool.inTransaction(r.words.length)) return tool.run(r, r.client);
  let output = "", code = 0;
  try {
    await r.client.transaction(async (t) => {
      output = "";
      code = await tool.run({ ...r, write: (text) => { output += text; } }, t);
      if (code) throw new Undone();
    });
  } catch (e) {
    if (e instanceof XsRefusal) throw new Leave(1, "couldn't end transaction");
    if (!(e instanceof Undone)) throw e;
  }
  r.world.out(output);
  return code;
}
