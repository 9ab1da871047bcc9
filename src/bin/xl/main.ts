/** What every verb goes through: global options, the table, options and words, help, the daemon. */
import type { ApiClient } from "../../api/client.node.ts";
import { ApiFault } from "../../api/fault.ts";
import { UserError } from "../../base/errors.ts";
import { needDaemon } from "../daemon/launch.ts";
import { getopt } from "../getopt.ts";
import { hostPaths } from "../paths.ts";
import { findVerb, VERBS } from "./table.ts";
import { Leave, left, type Verb, type Xl } from "./verb.ts";

/** What the command has of the world. */
export type XlWorld = {
  out(text: string): void;
  /** a line on stderr */
  say(line: string): void;
  /** shows how far it is, in place of what it showed before; and takes that away */
  progress(text: string): void;
  clear(): void;
  readonly isTerminal: boolean;
  readonly signal: AbortSignal;
  readonly env: NodeJS.ProcessEnv;
};

/** One option's line of a help text. */
function optionHelp(o: NonNullable<Verb["options"]>[number]): string {
  const forms = [o.short === undefined ? [] : [`-${o.short}${o.value && o.long === undefined ? ` ${o.arg}` : ""}`], o.long === undefined ? [] : [`--${o.long}${o.value ? `=${o.arg}` : ""}`]].flat().join(", ");
  return `${left(forms, 28)} ${o.help}\n`;
}
/** A verb's help, in xl's form. */
function usage(v: Verb): string {
  return `Usage: xl [-vtT${v.modifies ? "f" : ""}${v.dryRun ? "N" : ""}] ${v.name} ${v.args}\n\n${v.help}.\n\n${v.options?.length ? `Options:\n\n${v.options.map(optionHelp).join("")}\n` : ""}`;
}
/** The text of `xl help`, or of `xl help VERB`; null where there is no such verb. */
export function helpText(word: string | undefined): string | null {
  if (word === undefined || word === "--long") {
    return `Usage xl [-vfNtT] <subcommand> [args]\n\nxl full list of subcommands:\n\n${VERBS.map((v) => (v.name.length > 19 ? ` ${v.name}\n${" ".repeat(21)}` : ` ${left(v.name, 19)} `) + v.help).join("\n")}\n`
      + "\nBefore the subcommand: --state DIR chooses the host's folder (default: DOMUS_STATE, else $XDG_STATE_HOME/domus).\n";
  }
  const v = findVerb(word);
  return v && usage(v);
}

/** How long a verb that was told to end may wait for an answer. */
const DEAF_MS = 5000;
/** Tell once what was lost while nobody looked. */
async function tellLost(daemon: ApiClient, say: XlWorld["say"]): Promise<void> {
  const { lost } = await daemon.call("host.status", {});
  if (lost.length === 0) return;
  say(`xl: the machine died (${lost[0]!.why}), and with it ${lost.map((d) => `${d.name}${d.domid < 0 ? "" : ` (${d.domid})`}`).join(", ")}`);
  await daemon.call("host.acknowledge", {});
}

/** The command. @returns its exit code; what verbs refuse is said */
export async function xlMain(args: readonly string[], world: XlWorld): Promise<number> {
  try {
    return await main(args, world);
  } catch (e) {
    if (e instanceof Leave) { if (e.message) world.say(e.message); return e.code; }
    if (e instanceof ApiFault || e instanceof UserError) { world.say(`xl: ${e.message}`); return 1; }
    throw e;
  }
}
async function main(args: readonly string[], world: XlWorld): Promise<number> {
  const { out } = world;
  let state: string | undefined, at = 0;
  const globals = new Set<string>(), say = (line: string): void => { world.clear(); world.say(globals.has("T") ? `${new Date().toISOString()} [${process.pid}] ${line}` : line); };
  for (; at < args.length && args[at]!.startsWith("-"); at++) {
    const arg = args[at]!, given = /^--state(?:=(.*))?$/.exec(arg);
    if (given) { state = given[1] ?? args[++at]; if (state === undefined) throw new Leave(2, 'xl: "--state" wants a folder'); continue; }
    if (/^-[vftTN]+$/.test(arg)) { for (const c of arg.slice(1)) globals.add(c); continue; }
    if (arg === "-h" || arg === "--help") { out(helpText(undefined)!); return 0; }
    throw new Leave(1, "unknown global option");
  }
  const word = args[at], rest = args.slice(at + 1);
  if (word === undefined) { out(helpText(undefined)!); return 1; }
  if (word === "help") {
    const text = helpText(rest[0]);
    out(text ?? `command "${rest[0]}" not implemented\n`);
    return 0;
  }
  const verb = findVerb(word);
  if (!verb) throw new Leave(1, "command not implemented");
  if (!verb.run) throw new Leave(1, `xl: ${verb.name} is not built yet`);
  if (globals.has("N") && !verb.dryRun) throw new Leave(1, "command does not implement -N (dryrun) option");

  let unknown: string | null = null;
  const { met, words } = getopt(rest, verb.options ?? [], (sentence) => { unknown ??= sentence; });
  if (unknown !== null) {
    const [, which] = /^(?:invalid|unrecognized) option (?:-- )?'-{0,2}(.*?)'/.exec(unknown) ?? [];
    throw new Leave(2, which === undefined ? `xl: ${unknown}` : `option \`${which}' not supported.`);
  }
  const options = new Map(met.map((m) => [m.name, m.value]));
  if (options.has("h")) { out(usage(verb)); return 0; }
  const least = verb.minWords ?? 0;
  if (words.length < least) {
    say(`'xl ${verb.name}' requires at least ${least} argument${least > 1 ? "s" : ""}.\n`);
    out(usage(verb));
    return 2;
  }
  let daemon: Promise<ApiClient> | null = null;
  const xl: Xl = {
    out, say, signal: world.signal, isDryRun: globals.has("N"), isVerbose: globals.has("v"), env: world.env, progress: (p) => { if (world.isTerminal || globals.has("t")) world.progress(p.total ? `${p.text}: ${Math.floor((100 * (p.done ?? 0)) / p.total)} %` : p.text); },
    daemon: () => daemon ??= (async () => {
      const found = await needDaemon(hostPaths(state, world.env));
      await tellLost(found, say);
      return found;
    })(),
  };
  // a verb ends by itself when it is told to, unless it waits for who does not answer
  let timer: ReturnType<typeof setTimeout> | undefined;
  const deaf = new Promise<never>((_, failed) => { world.signal.addEventListener("abort", () => { timer = setTimeout(() => failed(new Leave(1, "xl: No answer came; what was asked for may be done all the same")), DEAF_MS); }, { once: true }); });
  try { return await Promise.race([verb.run(xl, { options, words }), deaf]); } finally { clearTimeout(timer); world.clear(); }
}
