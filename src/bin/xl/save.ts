/** Verbs that carry domains through time and space. */
import { spawn } from "node:child_process";
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import type { MigrateReport } from "../../toolstack/migrate.ts";
import { readConfig } from "./config-file.ts";
import { runConsole } from "./console.ts";
import { findGuest, Leave, type Line, orLeave, RC, type Verb, wordsOf, type Xl } from "./verb.ts";

const help = { short: "h", long: "help", help: "show this" } as const;
const ignored = (short: string, long?: string) => ({ short, ...(long === undefined ? {} : { long }), help: "taken, without meaning" });

async function save(xl: Xl, { options, words }: Line): Promise<number> {
  const [word, path, config] = words as [string, string, string?], { domid } = await findGuest(xl, word), daemon = await xl.daemon();
  const other = config === undefined ? {} : { config: readConfig(xl, config, [], { isComplete: true, isQuiet: true }) };
  const there = statSync(path, { throwIfNoEntry: false });
  if (there && !there.isFile() && !there.isDirectory()) throw new Leave(1, `xl: ${path} is a device, a pipe or a socket; a domain is saved to a file`);        // of this process, perhaps, which the daemon has not
  xl.say(`Saving to ${path} new xl format (info 0x3/0x0/0)`);
  try {
    await daemon.call("domain.save", { domain: domid, path: resolve(path), ...other, afterwards: options.has("c") ? "run" : options.has("p") ? "pause" : "destroy" }, { signal: xl.signal, progress: xl.progress });
  } catch (e) {
    throw new Leave(1, `xl: ${wordsOf(e)}\n${isUnheard(e) ? "It is not known whether the domain was saved: see xl list" : "Failed to save domain, resuming domain"}`);
  }
  return 0;
}
async function restore(xl: Xl, { options, words }: Line): Promise<number> {
  if (words.length > 2) throw new Leave(2, "xl restore takes a saved domain, and perhaps a configuration before it");
  const path = words.at(-1)!, config = words.length === 2 ? readConfig(xl, words[0]!, [], { isComplete: true, isQuiet: options.has("q") }) : null, isHeld = options.has("p") || options.has("c");
  xl.say(`Loading new save file ${path} (new xl fmt info 0x3/0x0/0)`);
  const daemon = await xl.daemon();
  const { domid } = await orLeave(-RC.fail, daemon.call("domain.restore", { path: resolve(path), ...(isHeld ? { isPaused: true } : {}), ...(config ? { config } : {}) }, { signal: xl.signal, progress: xl.progress }));
  if (options.has("c")) await runConsole(xl, domid, { follow: true, opened: () => { if (!options.has("p")) daemon.call("domain.unpause", { domain: domid }).catch((e) => xl.say(`xl: ${wordsOf(e)}`)); } });
  return 0;
}

/** domusd has gone while it was listened to; the machine goes on with what it was asked. */
const isUnheard = (e: unknown): boolean => /the connection broke before the answer/.test(wordsOf(e));
const failedText = (e: unknown): string => (isUnheard(e) ? "It is not known how the migration went: see xl list at both ends" : `Migration failed, ${/stands still here/.test(wordsOf(e)) ? "and it is not known which end has the domain" : "resuming at sender."}`);
/** How a migration went, in the words of a person. */
const reportText = (r: MigrateReport): string => `${r.bytes} bytes in ${(r.totalMs / 1000).toFixed(2)} s, ${r.rounds.length} rounds, the guest stood still for ${r.downtimeMs.toFixed(0)} ms${r.latePages ? `, ${r.latePages} pages went behind it in ${(r.lateMs / 1000).toFixed(2)} s` : ""}`;

async function migrate(xl: Xl, { options, words }: Line): Promise<number> {
  const [word, host] = words as [string, string], { domid } = await findGuest(xl, word), daemon = await xl.daemon(), ssh = options.get("s") ?? "ssh";
  const file = options.get("C"), config = file === undefined ? undefined : readConfig(xl, file, [], { isComplete: true, isQuiet: true }), limit = options.get("bandwidth");
  const how = { ...(limit === undefined ? {} : { maxBytesPerSecond: bandwidth(limit) }), ...(options.has("postcopy") ? { postcopy: true } : {}) };
  const direct = /^(?:\[[\da-f:.]+\]|[\w.-]+):\d{1,5}$/i.test(host) && !options.has("s");
  if (direct) {
    try {
      const token = xl.env["DOMUS_TOKEN"];
      const report = (await daemon.call("domain.migrate", { domain: domid, to: host, ...how, ...(config ? { config } : {}), ...(options.has("p") ? { isPaused: true } : {}), ...(token ? { token } : {}) }, { progress: xl.progress, signal: xl.signal })) as MigrateReport;
      if ((xl.isVerbose || options.has("debug")) && report.rounds) xl.say(reportText(report));
      xl.say("Migration successful.");
      return 0;
    } catch (e) {
      throw new Leave(1, `xl: ${wordsOf(e)}\n${failedText(e)}`);
    }
  }
  const receive = `xl migrate-receive${options.has("e") ? " -e" : ""}${options.has("p") ? " -p" : ""}`, command = ssh === "" ? host : `exec ${ssh} ${host} ${receive}`;
  const child = spawn("sh", ["-c", command], { stdio: ["pipe", "pipe", "inherit"] }), gone = new Promise<number>((done) => { child.on("close", (code) => done(code ?? -1)); child.on("error", () => done(-1)); });
  child.stdin.on("error", () => {});
  const { connection, task } = await orLeave(1, daemon.openStream("migrate.send", { domain: domid, live: true, ...how, ...(config ? { config: JSON.stringify(config) } : {}) }));
  connection.on("error", () => {});
  for (const piped of [pipeline(connection, child.stdin), pipeline(child.stdout, connection, { end: false })]) piped.catch(() => {});
  void gone.then(() => connection.end());
  try {
    const report = (await daemon.call("task.watch", { task: task! }, { progress: xl.progress, signal: xl.signal })) as MigrateReport;
    if (xl.isVerbose || options.has("debug")) xl.say(reportText(report));
    xl.say("migration sender: Target reports successful startup.\nMigration successful.");
    return 0;
  } catch (e) {
    throw new Leave(1, `xl: ${wordsOf(e)}\n${failedText(e)}\n(command run was: ${command} )`);
  } finally {
    connection.destroy();
    child.stdin.destroy();
    await gone;        // not for the pipes: one whose both ends were destroyed at once may never settle
  }
}
/** "10m": bytes a second. */
function bandwidth(text: string): number {
  const [, digits, unit] = /^(\d{1,9})([kmg]?)$/i.exec(text) ?? [];
  if (digits === undefined || Number(digits) === 0) throw new Leave(2, `xl: "${text}" is no bandwidth; write bytes a second, as 10m`);
  return Number(digits) * ({ k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, "": 1 }[unit!.toLowerCase() as "k"] ?? 1);
}
async function migrateReceive(xl: Xl, { options }: Line): Promise<number> {
  const daemon = await xl.daemon(), { connection, task } = await orLeave(1, daemon.openStream("migrate.receive", options.has("p") ? { isPaused: true } : {}));
  connection.on("error", () => {});
  process.stdin.on("error", () => {});
  process.stdout.on("error", () => connection.destroy());
  const out = pipeline(connection, process.stdout, { end: false }).catch(() => {});
  process.stdin.pipe(connection);
  try {
    await daemon.call("task.watch", { task: task! }, { signal: xl.signal });
    await out;
    return 0;
  } catch (e) {
    throw new Leave(1, `migration target: ${wordsOf(e)}`);
  } finally {
    process.stdin.unpipe(connection);
    process.stdin.unref?.();
    connection.destroy();
  }
}
async function migrateSettle(xl: Xl, { words }: Line): Promise<number> {
  const [migration, standing] = words as [string, string];
  if (standing !== "running" && standing !== "dropped") throw new Leave(2, `xl: "${standing}" is neither "running" (the other host has the domain) nor "dropped" (it has it not)`);
  const daemon = await xl.daemon(), { isHere } = await orLeave(1, daemon.call("migration.settle", { migration, standing }));
  xl.say(isHere ? "The domain goes on here." : "The copy here has ended.");
  return 0;
}

/** The verbs. */
export const SAVE_VERBS: readonly Verb[] = [
  { name: "save", help: "Save a domain to a file", args: "[options] <Domain> <CheckpointFile> [<ConfigFile>]", minWords: 2, modifies: true, run: save, note: "the file is there whole or not at all; a save that fails leaves the domain running", options: [help, { short: "c", help: "it runs on afterwards" }, { short: "p", help: "it is left paused" }, ignored("D")] },
  { name: "restore", help: "Make a domain from a saved one", args: "[options] [<ConfigFile>] <CheckpointFile>", minWords: 1, modifies: true, run: restore, options: [help, { short: "p", help: "leave it paused" }, { short: "c", help: "be on its console" }, ignored("e"), ignored("d"), ignored("V", "vncviewer"), ignored("A", "vncviewer-autopass"), { short: "q", help: "say nothing but errors" }] },
  { name: "migrate", help: "Move a domain to another host while it runs", args: "[options] <Domain> <host>", minWords: 2, modifies: true, run: migrate, note: "a host written HOST:PORT is one whose domusd serves HTTP there: the daemons speak TLS with each other, without ssh; --bandwidth and --postcopy are ours",
    options: [help, { short: "s", value: true, arg: "COMMAND", help: "in place of ssh; empty: run <host> as the command" }, ignored("e"), { short: "p", help: "leave it paused there" }, { short: "C", value: true, arg: "CONFIG", help: "what it is made from there: disks and images by other names; its own name it keeps" }, ignored("D"), { long: "live", help: "what is done anyway" }, { long: "debug", help: "tell how it went" }, { long: "bandwidth", value: true, arg: "BYTES", help: "at most so many bytes a second, as 10m" }, { long: "postcopy", help: "of a guest that writes faster than they go, have pages go behind it: with either host it is lost then" }] },
  { name: "migrate-receive", help: "Take a domain in, from stdin", args: "- for internal use only", modifies: true, run: migrateReceive, options: [help, ignored("e"), { short: "p", help: "leave it paused" }, ignored("d"), { long: "debug", help: "taken, without meaning" }] },
  { name: "migrate-settle", help: "Say which host has a domain that stands still because the link broke while it was handed over", args: "<Migration> running|dropped", minWords: 2, modifies: true, run: migrateSettle, note: "ours; running: the other host has it, and the copy here ends; dropped: it has it not, and it goes on here", options: [help] },
];
