/** Verbs that make, end, stop and name domains. */
import type { HostEvent } from "../../api/events.ts";
import { ApiFault } from "../../api/fault.ts";
import { fileOf, readConfig } from "./config-file.ts";
import { runConsole } from "./console.ts";
import { findDomain, findGuest, Leave, type Line, orLeave, RC, type Verb, wordsOf, type Xl } from "./verb.ts";

/** SHUTDOWN_* by our words. */
const REASON_CODES: Readonly<Record<string, number>> = { poweroff: 0, reboot: 1, suspend: 2, crash: 3, watchdog: 4, soft_reset: 5 };
/** The events have ended, and nobody has ended them here. */
const DAEMON_GONE = "domusd has ended while it was listened to; the domain may run on: see xl list";
const help = { short: "h", long: "help", help: "show this" } as const;

/** The exit code of a domain that could not be made, libxl's. */
function createCode(e: unknown): number {
  const code = e instanceof ApiFault ? e.code : "failed";
  return code === "exists" || code === "invalid" ? -RC.inval : code === "nomem" ? -RC.nomem : -RC.fail;
}

async function create(xl: Xl, line: Line): Promise<number> {
  const { options } = line, { file, settings, others } = fileOf(line), isQuiet = options.has("q"), isForeground = options.has("F");
  if (file === undefined) throw new Leave(-RC.inval, "Config file not specified and none in save file");
  if (others.length) throw new Leave(2, `xl: "${others[0]}" sets nothing; write key=value`);
  if (options.has("n") || xl.isDryRun) {
    xl.out(`${JSON.stringify(readConfig(xl, file, settings, { isComplete: false, isQuiet }), null, 4)}\n`);
    return 0;
  }
  const config = readConfig(xl, file, settings, { isComplete: true, isQuiet }), daemon = await xl.daemon(), hasConsole = options.has("c");
  const watch = isForeground ? await deathWatch(xl, config.c_info.uuid) : null;
  // a console that is to miss nothing is there before the domain runs
  const isHeld = hasConsole || options.has("p");
  let domid: number;
  try {
    ({ domid } = await daemon.call("domain.create", { config, ...(isHeld ? { isPaused: true } : {}) }, { signal: xl.signal, progress: xl.progress }));
  } catch (e) {
    watch?.stop();
    throw new Leave(createCode(e), e instanceof ApiFault && e.code === "exists" ? `xl: Domain with name "${config.c_info.name}" already exists.` : `xl: ${wordsOf(e)}`);
  }
  if (xl.signal.aborted) {        // too late for the task
    watch?.stop();
    await orLeave(1, daemon.call("domain.destroy", { domain: domid }));
    return 130;
  }
  if (hasConsole) {
    await runConsole(xl, domid, { follow: true, opened: () => { if (!options.has("p")) daemon.call("domain.unpause", { domain: domid }).catch((e) => xl.say(`xl: ${wordsOf(e)}`)); } });
  }
  if (!watch) return 0;
  if (!isQuiet) xl.say(`Waiting for domain ${config.c_info.name} (domid ${domid}) to die [pid ${process.pid}]`);
  return watch.over(isQuiet);
}

/** Follow one domain to its end, through its restarts, in xl's words. */
async function deathWatch(xl: Xl, uuid: string): Promise<{ over(isQuiet: boolean): Promise<number>; stop(): void }> {
  const stopped = new AbortController(), ready = Promise.withResolvers<void>(), seen: HostEvent[] = [], waiting: (() => void)[] = [];
  const stop = (): void => stopped.abort();
  xl.signal.addEventListener("abort", stop, { once: true });
  let isOver = false;
  void (async () => {
    for await (const e of (await xl.daemon()).events({ signal: stopped.signal, ready: () => ready.resolve() })) {
      if (e.uuid === uuid || e.kind === "machine.lost") seen.push(e);
      for (const go of waiting.splice(0)) go();
    }
  })().catch((e) => ready.reject(e)).finally(() => { isOver = true; ready.resolve(); for (const go of waiting.splice(0)) go(); });
  await ready.promise;
  return {
    stop,
    over: async (isQuiet) => {
      const say = (text: string): void => { if (!isQuiet) xl.say(text); };
      for (;;) {
        const e = seen.shift();
        if (!e) {
          if (isOver && !xl.signal.aborted) throw new Leave(1, `xl: ${DAEMON_GONE}`);
          if (isOver) return 130;
          await new Promise<void>((go) => waiting.push(go));
          continue;
        }
        if (e.kind === "domain.shutdown") {
          const code = REASON_CODES[e.reason ?? ""] ?? 3;
          say(`Domain ${e.domid} has shut down, reason code ${code} 0x${code.toString(16)}`);
          say(`Action for shutdown reason code ${code} is ${e.action}`);
          if (e.action === "preserve") { stop(); return 0; }
          say(`Domain ${e.domid} needs to be cleaned up: destroying the domain`);
          if (/restart$/.test(e.action ?? "")) say("Done. Rebooting now");
        }
        if (e.kind === "domain.died" && !/restart$/.test(e.action ?? "")) {
          if (e.reason === "destroyed") say(`Domain ${e.domid} has been destroyed.`);
          else say("Done. Exiting now");
          stop();
          return 0;
        }
        if (e.kind === "domain.lost" || e.kind === "machine.lost") { stop(); throw new Leave(1, `xl: the machine is lost, and the domain with it: ${e.text}`); }
      }
    },
  };
}

async function destroy(xl: Xl, { words, options }: Line): Promise<number> {
  const found = await findDomain(xl, words[0]!);
  if (found.domid === 0) throw new Leave(1, options.has("f") ? "This can only be done when using a disaggregated hardware domain and toolstack." : "Not destroying domain 0; use -f to force.");
  await orLeave(1, (await xl.daemon()).call("domain.destroy", { domain: found.domid }), `destroy failed (rc=${RC.fail})`);
  return 0;
}

/** shutdown and reboot: ask, and wait where that is wanted. */
const endVerb = (how: "poweroff" | "reboot", doing: string, done: string) => async (xl: Xl, { options, words }: Line): Promise<number> => {
  const isAll = options.has("a");
  if (!isAll && words.length === 0) throw new Leave(2, "You must specify -a or a domain id.");
  const daemon = await xl.daemon(), targets = isAll ? (await daemon.call("domain.list", {})).filter((d) => d.domid !== 0) : [await findGuest(xl, words[0]!)];
  const watch = options.has("w") ? await endWatch(xl, new Map(targets.map((d) => [d.uuid, d.domid]))) : null;
  let failed = false;
  for (const d of targets) {
    xl.say(`${doing} domain ${d.domid}`);
    try {
      await daemon.call("domain.shutdown", { domain: d.domid, how });
    } catch (e) {
      if (e instanceof ApiFault && e.code === "gone") { watch?.skip(d.uuid); if (isAll) continue; }
      xl.say(`xl: ${wordsOf(e)}\n${done} failed (rc=${RC.fail})`);
      failed = true;
      watch?.skip(d.uuid);
    }
  }
  if (watch && !(failed && !isAll)) {
    xl.say(`Waiting for ${watch.nr} domains`);
    const code = await watch.over();
    if (code) return code;
  }
  watch?.stop();
  return failed ? 1 : 0;
};

/** Wait until each of some domains has ended. */
async function endWatch(xl: Xl, domains: Map<string, number>): Promise<{ readonly nr: number; skip(uuid: string): void; over(): Promise<number>; stop(): void }> {
  const stopped = new AbortController(), ready = Promise.withResolvers<void>(), done = Promise.withResolvers<number>();
  const stop = (): void => stopped.abort();
  xl.signal.addEventListener("abort", stop, { once: true });
  const left = (uuid: string): void => { domains.delete(uuid); if (domains.size === 0) done.resolve(0); };
  void (async () => {
    for await (const e of (await xl.daemon()).events({ signal: stopped.signal, ready: () => ready.resolve() })) {
      if (e.kind === "machine.lost") { xl.say(`xl: the machine is lost: ${e.text}`); done.resolve(1); }
      if (e.uuid === undefined || domains.get(e.uuid) !== e.domid) continue;
      if (e.kind === "domain.shutdown") { xl.say(`Domain ${e.domid} has been shut down, reason code ${REASON_CODES[e.reason ?? ""] ?? 3}`); left(e.uuid); }
      else if (e.kind === "domain.died") { xl.say(`Domain ${e.domid} has been destroyed`); left(e.uuid); }
    }
    if (!xl.signal.aborted && !stopped.signal.aborted) xl.say(`xl: ${DAEMON_GONE}`);
    done.resolve(xl.signal.aborted ? 130 : 1);
  })().catch((e) => { ready.reject(e); done.resolve(1); });
  await ready.promise;
  return {
    get nr() { return domains.size; }, skip: left, stop,
    over: async () => { if (domains.size === 0) done.resolve(0); const code = await done.promise; stop(); return code; },
  };
}

/** A verb that asks one thing of one domain. */
const simple = (act: (xl: Xl, domid: number, line: Line) => Promise<unknown>) => async (xl: Xl, line: Line): Promise<number> => {
  const { domid } = await findGuest(xl, line.words[0]!);
  await orLeave(1, act(xl, domid, line));
  return 0;
};

async function consoleVerb(xl: Xl, { options, words }: Line): Promise<number> {
  const type = options.get("t") ?? "pv", number = options.get("n") ?? "0";
  if (type !== "pv") throw new Leave(1, type === "serial" || type === "vuart" ? `xl: a PVH domain has no ${type} console\nUnable to attach console` : "console type supported are: pv, serial, vuart");
  if (!/^\d{1,2}$/.test(number)) throw new Leave(1, `xl: "${number}" is no number of a console`);
  const { domid } = await findGuest(xl, words[0]!);
  await orLeave(1, runConsole(xl, domid, { number: Number(number), follow: true }), "Unable to attach console");
  return 0;
}

async function configUpdate(xl: Xl, line: Line): Promise<number> {
  const [word, ...rest] = line.words;
  if (word === undefined) throw new Leave(1, "xl config-update requires a domain argument");
  const { domid } = await findGuest(xl, word), { file, settings } = fileOf({ ...line, words: rest });
  if (file === undefined) throw new Leave(1, "Config file not specified");
  const config = readConfig(xl, file, settings, { isComplete: !xl.isDryRun, isQuiet: false });
  if (xl.isDryRun) { xl.out(`${JSON.stringify(config, null, 4)}\n`); return 0; }
  xl.say(`setting dom${domid} configuration`);
  await orLeave(1, (await xl.daemon()).call("domain.configUpdate", { domain: domid, config }), "failed to update configuration");
  return 0;
}

/** The verbs. */
export const DOMAIN_VERBS: readonly Verb[] = [
  {
    name: "create", help: "Make a domain from a configuration file", args: "<ConfigFile> [options] [vars]", modifies: true, dryRun: true, run: create,
    note: "-V and -A (VNC) and -e are taken and mean nothing: domusd keeps domains, xl never has to stay; -c follows the console through restarts",
    options: [
      { short: "c", help: "be on its console when it starts" }, { short: "d", help: "taken, without meaning" }, { short: "e", help: "taken: nobody waits in the background here, domusd does" }, { short: "F", help: "stay until the domain's death" },
      { short: "f", long: "defconfig", value: true, arg: "FILE", help: "the configuration file" }, help, { short: "n", long: "dryrun", help: "print what the file means, as JSON, and make nothing" }, { short: "p", help: "leave it paused" },
      { short: "q", long: "quiet", help: "say nothing but errors" }, { short: "V", long: "vncviewer", help: "taken, without meaning" }, { short: "A", long: "vncviewer-autopass", help: "taken, without meaning" },
      { long: "ignore-global-affinity-masks", help: "taken, without meaning" },
    ],
  },
  { name: "config-update", help: "Change what a domain is made from at its next restart", args: "<Domain> <ConfigFile> [options] [vars]", modifies: true, dryRun: true, run: configUpdate, options: [help, { short: "f", long: "defconfig", value: true, arg: "FILE", help: "the configuration file" }, { short: "d", help: "taken, without meaning" }] },
  { name: "destroy", help: "End a domain at once", args: "[options] <Domain>", minWords: 1, modifies: true, run: destroy, options: [help, { short: "f", help: "domain 0 too; refused all the same" }] },
  { name: "shutdown", help: "Ask a guest to power off", args: "[options] <-a|Domain>", modifies: true, run: endVerb("poweroff", "Shutting down", "shutdown"), options: [{ short: "a", long: "all", help: "all guests" }, help, { short: "F", help: "for HVM guests without PV drivers; taken" }, { short: "w", long: "wait", help: "wait until it has" }] },
  { name: "reboot", help: "Ask a guest to reboot", args: "[options] <-a|Domain>", modifies: true, run: endVerb("reboot", "Rebooting", "reboot"), options: [{ short: "a", long: "all", help: "all guests" }, help, { short: "F", help: "for HVM guests without PV drivers; taken" }, { short: "w", long: "wait", help: "wait until it has gone down" }] },
  { name: "pause", help: "Stop a domain's vCPUs", args: "<Domain>", minWords: 1, modifies: true, run: simple(async (xl, domain) => (await xl.daemon()).call("domain.pause", { domain })), options: [help], note: "counts: as many unpause as pause; xl's returns 0 whatever happened, ours 1 where it failed" },
  { name: "unpause", help: "Let a paused domain run", args: "<Domain>", minWords: 1, modifies: true, run: simple(async (xl, domain) => (await xl.daemon()).call("domain.unpause", { domain })), options: [help] },
  { name: "console", help: "Be on a domain's console", args: "[options] <Domain>", minWords: 1, run: consoleVerb, options: [help, { short: "t", value: true, arg: "TYPE", help: "pv; serial and vuart are not there" }, { short: "n", value: true, arg: "NR", help: "0: the primary console; from 1: its channels" }, { short: "e", value: true, arg: "C", help: "taken; ^] detaches" }],
    note: "several may look, one types; begins with the last 64 KiB that were said" },
  { name: "rename", help: "Give a domain another name", args: "<Domain> <NewDomainName>", minWords: 2, modifies: true, options: [help], run: async (xl, { words }) => {
    const { domid } = await findGuest(xl, words[0]!);
    if (words[1] === "") throw new Leave(1, `xl: A domain has a name of at least one letter.\nCan't rename domain '${words[0]}'.`);
    await orLeave(1, (await xl.daemon()).call("domain.rename", { domain: domid, name: words[1]! }), `Can't rename domain '${words[0]}'.`);
    return 0;
  } },
  { name: "trigger", help: "Send a trigger to a domain", args: "<Domain> <nmi|reset|init|power|sleep|s3resume> [<VCPU>]", minWords: 2, modifies: true, options: [help], note: "nmi and reset are built; the others are for HVM guests or not yet", run: async (xl, { words }) => {
    const [word, trigger, vcpu] = words, { domid } = await findGuest(xl, word!);
    if (!/^(?:nmi|reset|init|power|sleep|s3resume)$/.test(trigger!)) throw new Leave(1, `Invalid trigger "${trigger}"`);
    if (vcpu !== undefined && !/^\d{1,3}$/.test(vcpu)) xl.say("Invalid vcpuid, using default vcpuid=0.");
    await orLeave(1, (await xl.daemon()).call("domain.trigger", { domain: domid, trigger: trigger as "reset", vcpu: /^\d{1,3}$/.test(vcpu ?? "") ? Number(vcpu) : 0 }));
    return 0;
  } },
  { name: "sysrq", help: "Press a Magic SysRq key in a guest", args: "<Domain> <letter>", minWords: 2, modifies: true, options: [help], run: async (xl, { words }) => {
    const { domid } = await findGuest(xl, words[0]!);
    if (words[1]!.length !== 1) throw new Leave(1, "Invalid sysrq.");
    await orLeave(1, (await xl.daemon()).call("domain.sysrq", { domain: domid, key: words[1]! }));
    return 0;
  } },
];
