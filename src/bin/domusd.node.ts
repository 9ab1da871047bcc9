/** domusd: the host's daemon, and the words to begin, end and ask it. */
import { rmSync } from "node:fs";
import { resolve } from "node:path";
import { ROLES } from "../api/actions.ts";
import { faultOf } from "../api/fault.ts";
import { UserError } from "../base/errors.ts";
import { numberOption, type Option, optionsHelp, parseArgs } from "./args.ts";
import { Host } from "./daemon/host.ts";
import { HTTP_OPTIONS, parseFolders, parseHttp, serveHttp } from "./daemon/http.ts";
import { findDaemon, startDaemon } from "./daemon/launch.ts";
import { reportReady, startOf } from "./daemon/processes.ts";
import { HostState } from "./daemon/state.ts";
import { jsonLog } from "./log.ts";
import { MACHINE_OPTIONS } from "./machine/options.ts";
import { type HostPaths, hostPaths, makeOwnFolder } from "./paths.ts";
import { serveUnix } from "./unix-server.ts";

const OPTIONS: Readonly<Record<string, Option>> = {
  state: { value: "DIR", help: "the host's folder (default: DOMUS_STATE, else $XDG_STATE_HOME/domus); each has a daemon of its own" },
  "idle-minutes": { value: "N", help: "end, machine and all, when no domain was there and nobody asked for so long (default: never; xl starts it with 15)" },
  force: { help: "stop: end domains too" },
  "keep-machine": { help: "stop: end the daemon alone; the next one finds machine and domains again" },
  folders: { value: "DIR[:DIR]", help: 'whose files the role operate may name over HTTP: kernels, disks, saved domains; "none": no more (default: none)' },
  help: { help: "this text", short: "h" },
  ...HTTP_OPTIONS,
  ...MACHINE_OPTIONS,
};
const HELP = `domusd run [options]      be the host's daemon, in the foreground
domusd start [options]    start it in the background
domusd stop [options]     end it, and its machine
domusd status             what there is, as JSON
domusd token NAME ROLE    make a token for the API over HTTP, and print it; the roles are read, operate, admin
domusd tokens             the tokens there are
domusd untoken NAME       take one back

The daemon starts a machine in a process of its own, which goes on when the daemon ends by itself or is killed; the next daemon finds it again. xl starts a daemon where none
runs. Options of the machine and of HTTP are kept, and hold from its next start.

${optionsHelp(OPTIONS)}`;
const log = jsonLog("domusd");
/** An option's value in words that hold in any folder. */
const wholeValue = (name: string, value: string): string => (/^tls-/.test(name) ? resolve(value) : name === "folders" && value !== "none" ? value.split(":").filter((f) => f !== "").map((f) => resolve(f)).join(":") : value);

async function run(parsed: ReturnType<typeof parseArgs>): Promise<number> {
  const paths = hostPaths(parsed.options.get("state")), idleMinutes = numberOption(parsed, "idle-minutes", 0, 1e6) ?? 0;
  for (const folder of [paths.state, paths.run]) makeOwnFolder(folder);
  if (await findDaemon(paths)) throw new UserError(`A domusd runs on ${paths.state} already`);
  const state = await HostState.open(paths.database), host = new Host(state, paths, log), ended = Promise.withResolvers<number>();
  const machine = Object.keys(MACHINE_OPTIONS).flatMap((name) => { const value = parsed.options.get(name); return value === undefined ? [] : [value === "" ? `--${name}` : `--${name}=${value}`]; });
  if (machine.length) host.machine.wish(machine);
  const given = Object.keys(HTTP_OPTIONS).flatMap((name) => { const value = parsed.options.get(name); return value === undefined ? [] : [[name, wholeValue(name, value)] as const]; });
  const options = new Map(given.length ? given : JSON.parse(state.setting("http") ?? "[]") as [string, string][]), choice = parseHttp(options);
  const folders = parsed.options.has("folders") ? wholeValue("folders", parsed.options.get("folders")!) : state.setting("folders") ?? "none";
  host.folders = parseFolders(folders, paths);
  host.onStop = () => ended.resolve(0);
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => ended.resolve(0));
  process.on("SIGHUP", () => {});
  // an address that cannot be had is neither kept nor leaves a machine behind
  const http = choice ? await serveHttp(host, state, choice) : null;
  if (given.length) state.putSetting("http", JSON.stringify(given));
  if (parsed.options.has("folders")) state.putSetting("folders", folders);
  const begun = host.machine.begin(), server = await serveUnix(paths.socket, host.served());
  if (http) log("info", `The API is served at ${host.http}`);
  log("info", `domusd serves ${paths.socket}`, { state: paths.state });
  reportReady("ready\n");
  void begun.catch((e) => log("error", (e as Error).message));
  const idle = idleMinutes === 0 ? undefined : setInterval(() => {
    if (host.idleMs() < idleMinutes * 60_000) return;
    clearInterval(idle);
    log("info", "Nobody needs it any more");
    void host.machine.end().then(() => ended.resolve(0));
  }, 5000);
  const code = await ended.promise;
  clearInterval(idle);
  host.machine.close();
  server.close();
  server.closeAllConnections();
  http?.close();
  http?.closeAllConnections();
  rmSync(paths.socket, { force: true });
  state.close();
  log("info", "domusd ends");
  return code;
}

/** Say so. @returns the exit code */
function noneRuns({ state }: HostPaths): number {
  process.stderr.write(`domusd: none runs on ${state}\n`);
  return 1;
}

async function main(args: string[]): Promise<number> {
  const parsed = parseArgs(args, OPTIONS, "domusd"), word = parsed.words[0] ?? "help", given = parsed.options.get("state"), paths = hostPaths(given);
  if (word === "help" || parsed.options.has("help")) { process.stdout.write(HELP); return word === "help" && !args.length ? 2 : 0; }
  switch (word) {
    case "run": return run(parsed);
    case "start": {
      if (await findDaemon(paths)) throw new UserError(`A domusd runs on ${paths.state} already`);
      await startDaemon(paths, [...parsed.options].map(([name, value]) => (value === "" ? `--${name}` : `--${name}=${wholeValue(name, value)}`)));       // it stands in another folder
      return 0;
    }
    case "stop": {
      const daemon = await findDaemon(paths);
      if (!daemon) return noneRuns(paths);
      const { pid } = await daemon.call("host.status", {}), start = startOf(pid);
      await daemon.call("host.stop", { isForced: parsed.options.has("force"), keepMachine: parsed.options.has("keep-machine") });
      while (start !== null && startOf(pid) === start) await new Promise((done) => setTimeout(done, 50));       // then its folder is nobody's
      return 0;
    }
    case "status": {
      const daemon = await findDaemon(paths);
      if (!daemon) return noneRuns(paths);
      process.stdout.write(`${JSON.stringify(await daemon.call("host.status", {}), null, 2)}\n`);
      return 0;
    }
    case "token": case "tokens": case "untoken": {
      const [, name, role] = parsed.words, daemon = await findDaemon(paths);
      if (!daemon) return noneRuns(paths);
      if (word === "tokens") for (const t of await daemon.call("token.list", {})) process.stdout.write(`${t.name.padEnd(24)} ${t.role.padEnd(8)} ${new Date(t.createdMs).toISOString()}\n`);
      else if (name === undefined) throw new UserError(`domusd ${word} wants a name`);
      else if (word === "untoken") await daemon.call("token.remove", { name });
      else if (!ROLES.some((r) => r === role)) throw new UserError(`A role is one of ${ROLES.join(", ")}, not "${role ?? ""}"`);
      else process.stdout.write(`${(await daemon.call("token.create", { name, role: role as "read" })).token}\n`);
      return 0;
    }
    default: throw new UserError(`Unknown word "${word}"; there are run, start, stop, status, token, tokens, untoken (domusd --help)`);
  }
}
process.on("unhandledRejection", (e) => log("error", `A promise was left to itself: ${(e as Error)?.message ?? e}`, { stack: (e as Error)?.stack }));
process.exitCode = 70;        // unless somebody says how it ended
void main(process.argv.slice(2)).catch((e) => {
  reportReady(`failed: ${faultOf(e).message}\n`);
  process.stderr.write(`domusd: ${faultOf(e).message}\n`);
  if (!(e instanceof UserError)) log("error", (e as Error).message, { stack: (e as Error).stack });
  return e instanceof UserError ? 2 : 70;
}).then((code) => process.exit(code));
