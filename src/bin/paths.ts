/** Paths of a host's daemons and of those who call them. */
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { UserError } from "../base/errors.ts";

/** A path that somebody wrote in that folder, as one that holds anywhere. */
export const pathFrom = (folder: string, path: string): string => (isAbsolute(path) ? path : resolve(folder, path));
/** A path of a configuration: from the current folder, as xl has it, else from the file's own. */
export function pathOf(path: string, file: string): string {
  const beside = join(dirname(file), path);
  return isAbsolute(path) || existsSync(path) || !existsSync(beside) ? path : beside;
}

/** Where a daemon keeps what outlives it, and where its sockets are. */
export type HostPaths = { readonly state: string; readonly run: string; readonly socket: string; readonly database: string; readonly log: string };
const DATABASE = "host.sqlite", OURS = new Set(["run", "lock", "domusd.log"]);
/** The longest path that fits struct sockaddr_un. */
const SOCKET_PATH_MAX = 107;

/**
 * The folders of a host: `given` (--state), DOMUS_STATE, else $XDG_STATE_HOME/domus. Sockets are in it too, so that two hosts never share one; where its path is too long
 * for a socket, they are in a folder of its own in $XDG_RUNTIME_DIR, or among the temporary files.
 */
export function hostPaths(given: string | undefined, env: NodeJS.ProcessEnv = process.env): HostPaths {
  if (given === "") throw new UserError("--state names no folder");
  const state = resolve(given ?? (env["DOMUS_STATE"] || join(env["XDG_STATE_HOME"] || join(homedir(), ".local/state"), "domus"))), isShort = Buffer.byteLength(join(state, "run", "machine-default.sock")) <= SOCKET_PATH_MAX;
  const run = isShort ? join(state, "run") : join(env["XDG_RUNTIME_DIR"] || tmpdir(), `domus-${process.getuid?.() ?? 0}-${digest(state)}`);
  return { state, run, socket: join(run, "domusd.sock"), database: join(state, DATABASE), log: join(state, "domusd.log") };
}
/** FNV-1a: a short name for a long path. */
function digest(text: string): string {
  let h = 0xcbf29ce484222325n;
  for (const b of Buffer.from(text)) h = BigInt.asUintN(64, (h ^ BigInt(b)) * 0x100000001b3n);
  return h.toString(36);
}

/** Make a folder and those it lies in. Node's own way of doing so never ends where a file system has none of a name and makes none, as /proc. @throws as mkdir does */
export function makeFolders(folder: string, mode = 0o777): void {
  const isThere = (): boolean => statSync(folder, { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (isThere()) return;
  if (!existsSync(dirname(folder))) makeFolders(dirname(folder), mode);
  try { mkdirSync(folder, { mode }); } catch (e) { if ((e as NodeJS.ErrnoException).code !== "EEXIST" || !isThere()) throw e; }       // somebody else was faster
}
/** Make a folder that only this user can enter, if it is missing. One that others may enter and that has something else in it is theirs too. @throws UserError where it cannot be had, or is another's */
export function makeOwnFolder(folder: string): void {
  try { makeFolders(folder, 0o700); } catch (e) { throw new UserError(`${folder} cannot be made (${(e as NodeJS.ErrnoException).code}); choose another folder with --state`, { cause: e }); }
  const stat = lstatSync(folder);
  if (!stat.isDirectory() || (process.getuid && stat.uid !== process.getuid())) throw new UserError(`${folder} is not this user's own folder; remove it, or choose another with --state`);
  if (!(stat.mode & 0o077)) return;
  if (readdirSync(folder).some((name) => !OURS.has(name)) && !existsSync(join(folder, DATABASE))) throw new UserError(`${folder} holds other files and is open to others; choose a folder of its own with --state, or close it (chmod 700)`);
  chmodSync(folder, 0o700);
}
