/** The command xl: finds the verb, understands its line, and runs it against the host's daemon. */
import { writeSync } from "node:fs";
import type { ApiClient } from "../api/client.node.ts";
import { ApiFault } from "../api/fault.ts";
import { UserError } from "../base/errors.ts";
import { getopt } from "./getopt.ts";
import { needDaemon } from "./daemon/launch.ts";
import { hostPaths } from "./paths.ts";
import { endings, flush, type Ending } from "./terminal.ts";
import { findVerb, VERBS } from "./xl/table.ts";
import { Leave, left, type Verb, type Xl } from "./xl/verb.ts";

const say = (line: string): void => { try { writeSync(2, `${line}\n`); } catch { /* nobody to tell */ } };

/** One option's line of a help text. */
function optionHelp(o: NonNullable<Verb["options"]>[number]): string {
  const forms = [o.short === undefined ? [] : [`-${o.short}${o.value && o.long === undefined ? ` ${o.arg}` : ""}`], o.long === undefined ? [] : [`--${o.long}${o.value ? `=${o.arg}` : ""}`]].flat().join(", ");
  return `${left(forms, 28)} ${o.help}\n`;
}
/** A verb's help, in xl's form. */
function usage(v: Verb): string {
  return `Usage: xl [-vtT${v.modifies ? "f" : ""}${v.dryRun ? "N" : ""}] ${v.name} ${v.args}\n\n${v.help}.\n\n${v.options?.length ? `Options:\n\n${v.options.map(optionHelp).join("")}\n` : ""}`;
}
function help(word: string | undefined): number {
  if (word === undefined || word === "--long") {
    process.stdout.write(`Usage xl [-vfNtT] <subcommand> [args]\n\nxl full list of subcommands:\n\n${VERBS.map((v) => (v.name.length > 19 ? ` ${v.name}\n${" ".repeat(21)}` : ` ${left(v.name, 19)} `) + v.help).join("\n")}\n`);
    process.stdout.write("\nBefore the subcommand: --state DIR chooses the host's folder (default: DOMUS_STATE, else $XDG_STATE_HOME/domus).\n");
    return 0;
  }
  const v = findVerb(word);
  if (!v) { process.stdout.write(`command "${word}" not implemented\n`); return 1; }
  process.stdout.write(usage(v));
  return 0;
}

/** A terminal's last line is rewritten; elsewhere progress is not worth a line. */
function progressLine(isWanted: boolean): { show(text: string): void; clear(): void } {
  let isShown = false;
  return {
    show: (text) => { if (isWanted) { try { writeSync(2, `\r\x1b[K${text}`); } catch { /* nobody to tell */ } isShown = true; } },
    clear: () => { if (isShown) try { writeSync(2, "\r\x1b[K"); } catch { /* nobody to tell */ } isShown = false; },
  };
}

/** Tell once what was lost while nobody looked. */
async function tellLost(daemon: ApiClient): Promise<void> {
  const { lost } = await daemon.call("host.status", {});
  if (lost.length === 0) return;
  say(`xl: the machine died (${lost[0]!.why}), and with it ${lost.map((d) => `${d.name}${d.domid < 0 ? "" : ` (${d.domid})`}`).join(", ")}`);
  await daemon.call("host.acknowledge", {});
}

async function main(args: string[]): Promise<number> {
  let state: string | undefined, at = 0;
  const globals = new Set<string>();
  for (; at < args.length && args[at]!.startsWith("-"); at++) {
    const arg = args[at]!, given = /^--state(?:=(.*))?$/.exec(arg);
    if (given) { state = given[1] ?? args[++at]; if (state === undefined) throw new Leave(2, 'xl: "--state" wants a folder'); continue; }
    if (/^-[vftTN]+$/.test(arg)) { for (const c of arg.slice(1)) globals.add(c); continue; }
    if (arg === "-h" || arg === "--help") return help(undefined);
    say("unknown global option");
    return 2;
  }
  const word = args[at], rest = args.slice(at + 1);
  if (word === undefined) { help(undefined); return 1; }
  if (word === "help") return help(rest[0]);
  const verb = findVerb(word);
  if (!verb) { say("command not implemented"); return 1; }
  if (!verb.run) { say(`xl: ${verb.name} is not built yet`); return 1; }
  if (globals.has("N") && !verb.dryRun) { say("command does not implement -N (dryrun) option"); return 1; }

  let unknown: string | null = null;
  const { met, words } = getopt(rest, verb.options ?? [], (sentence) => { unknown ??= sentence; });
  if (unknown !== null) { say(/'-?-?(.*?)'/.exec(unknown)?.[1] !== undefined && /^(?:invalid|unrecognized)/.test(unknown) ? `option \`${/'-?-?(.*?)'/.exec(unknown)![1]}' not supported.` : `xl: ${unknown}`); return 2; }
  const options = new Map(met.map((m) => [m.name, m.value]));
  if (options.has("h")) { process.stdout.write(usage(verb)); return 0; }
  const least = verb.minWords ?? 0;
  if (words.length < least) {
    say(`'xl ${verb.name}' requires at least ${least} argument${least > 1 ? "s" : ""}.\n`);
    process.stdout.write(usage(verb));
    return 2;
  }
  const controller = endings(), progress = progressLine(globals.has("t") || process.stderr.isTTY === true);
  let daemon: Promise<ApiClient> | null = null;
  const xl: Xl = {
    out: (text) => { process.stdout.write(text); }, say: (line) => { progress.clear(); say(globals.has("T") ? `${new Date().toISOString()} [${process.pid}] ${line}` : line); }, signal: controller.signal, isDryRun: globals.has("N"), isVerbose: globals.has("v"), env: process.env,
    progress: (p) => progress.show(p.total ? `${p.text}: ${Math.floor((100 * (p.done ?? 0)) / p.total)} %` : p.text),
    daemon: () => daemon ??= (async () => {
      const found = await needDaemon(hostPaths(state));
      await tellLost(found);
      return found;
    })(),
  };
  try {
    const code = await verb.run(xl, { options, words });
    return controller.signal.aborted ? (controller.signal.reason as Ending).exitCode ?? code : code;
  } finally {
    progress.clear();
  }
}

const code = await main(process.argv.slice(2)).catch((e) => {
  if (e instanceof Leave) { if (e.message) say(e.message); return e.code; }
  if (e instanceof ApiFault || e instanceof UserError) { say(`xl: ${e.message}`); return 1; }
  say(`xl: internal error: ${e instanceof Error ? e.message : String(e)}${process.env["DOMUS_DEBUG"] ? `\n${(e as Error).stack}` : " (DOMUS_DEBUG=1 shows where)"}`);
  return 70;
});
await flush(process.stdout);
process.exit(code);
