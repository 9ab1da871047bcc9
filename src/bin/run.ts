/** `domus run`: domains of xl.cfg files in the foreground. */
import { closeSync, openSync, readFileSync, readSync, statSync, writeFileSync } from "node:fs";
import { UserError } from "../base/errors.ts";
import { readKallsyms } from "../builder/kallsyms.ts";
import { parseSystemMap, SymbolTable } from "../builder/symbols.ts";
import { checkConfig, type CheckedConfig, type DomainFile, dropImages, fromXl, type ShareConfig } from "../toolstack/config.ts";
import { type CrashReport, crashText } from "../toolstack/crash.ts";
import { planDomain } from "../toolstack/create.ts";
import { closeDisks } from "../toolstack/disks.ts";
import type { Domain, DomainEnd } from "../toolstack/domain.ts";
import { parseForward } from "../network/nat/forward.ts";
import { IPV6_CHOICES, type Ipv6Choice } from "../network/nat/ipv6-choice.ts";
import { nodeHost } from "../toolstack/host.node.ts";
import { beginMachine, type Machine } from "../toolstack/machine.ts";
import { ENGINES, type EngineName } from "../toolstack/pcpu-messages.ts";
import { type ProfileReport, profileReport, profileText } from "../toolstack/profile.ts";
import { DEFAULT_BRIDGE } from "../toolstack/networks.ts";
import { superviseDomain } from "../toolstack/supervise.ts";
import type { ChannelSpec } from "../toolstack/xldevices.ts";
import { applySetting, isSetting, type Place, parseXlCfg, placeText } from "../toolstack/xlcfg.ts";
import { numberOption, type Option, optionsHelp, type Parsed, parseArgs, wordOption } from "./args.ts";
import { logConsole, serveChannel } from "./consoles.ts";
import { openCodeCache } from "./code-cache.ts";
import { openDisks } from "./disks.ts";
import { pathOf } from "./paths.ts";
import { TRANSLATE_AFTER } from "../x86/translate-after.ts";
import { findShares, parseShare, withShares } from "./shares.ts";
import { attachConsole, copyOut, type Ending, endings, flush, linePrefixer, printLine } from "./terminal.ts";
import { Captures, Links, natUplinks, type NetChoice, parseLink, parseNet, tapUplinks } from "./uplink.ts";
import { serveStore } from "./xenstore.ts";

/** Options that `run` and `start` share. */
export const RUN_OPTIONS: Readonly<Record<string, Option>> = {
  strict: { help: "unknown keys are errors" },
  engine: { value: "NAME", help: `${ENGINES.join(", ")}: how guest code is executed` },
  pcpus: { value: "N", help: "physical CPUs, a thread each (default: as many as the domains have vCPUs, but no more than this computer has)" },
  "translate-after": { value: "N", help: `arrivals at code until it is translated (default: ${TRANSLATE_AFTER}); 0: at once` },
  "code-cache": { value: "DIR", help: "keep translated code in DIR, and begin with what is there (at most 64 MiB a version)" },
  "console-log": { value: "DIR", help: "append what each console says to DIR/NAME.log" },
  throwaway: { help: "what guests write to their disks is kept in memory (1 GiB a disk at most) and lost at the end; images stay as they are" },
  share: { value: "SPEC", repeats: true, help: "let the domains mount a folder of this computer, [TAG=]FOLDER[,readonly] (mount -t 9p -o trans=xen,version=9p2000.L TAG /mnt; default TAG: share); may be given several times" },
  net: { value: "KIND", help: `the way out of the guests' bridges: nat (default; a router in this process, no root needed), none, or tap:NAME[,bridge=BRIDGE]: ${DEFAULT_BRIDGE} is joined with this computer's interface NAME, in its bridge BRIDGE (wants root and the package koffi)` },
  forward: { value: "SPEC", help: "let a port of this computer lead to the guest's first interface: tcp:2222-22, udp:0.0.0.0:5353-53, tcp:[::1]:8080-[fd64:6f6d:7573:2::15]:80; several with commas between" },
  "host-access": { help: "guests reach this computer's 127.0.0.1 as 10.0.2.2 (host.domus.internal) and its ::1 as fd64:6f6d:7573:2::2 (host6.domus.internal)" },
  "net-rules": { value: "RULES", help: 'what guests may reach by the router, the first rule that fits: "deny 10.0.0.0/8, deny fc00::/7, allow tcp any:443, deny any"; rules that deny IPv4 networks and name no IPv6 ones deny all IPv6' },
  ipv6: { value: "KIND", help: "IPv6 in the guests' networks: auto (default; out where this computer has it), always out, local (never out: this computer and other guests alone), or none" },
  link: { value: "SPEC", help: "join a bridge with another machine's or with QEMU's guests: [BRIDGE=][listen:]unix:PATH[,qemu] or tcp:HOST:PORT; or with pages in browsers (docs/web.md): [BRIDGE=]listen:ws:HOST:PORT[,origin=URL]; nobody is asked who they are" },
  capture: { value: "FILE", help: "write what passes the bridges to FILE, as pcapng" },
  "capture-filter": { value: "TEXT", help: 'only what is meant by words like tcpdump\'s: "host 10.0.2.15 and not port 22"' },
  trace: { value: "CLASSES", help: 'what to trace, "all" or names with commas between; printed on stderr at the end' },
  json: { value: "[=FILE]", help: "print the final report as JSON, on stderr or to FILE" },
  profile: { value: "[=FILE]", help: "where guest time goes, and counters: on stderr at the end or to FILE; as JSON where FILE ends in .json, and in --json's report" },
  xenstore: { value: "[=PATH]", help: "serve the store at PATH, a Unix socket, for the xenstore-* tools (default: XENSTORED_PATH, or a folder of this user's)" },
  symbols: { value: "FILE", help: "a System.map to name the kernel's functions in the profile by (default: the kernel's own kallsyms)" },
  quiet: { help: "no warnings, no progress, no report", short: "q" },
  help: { help: "this text", short: "h" },
};
const HELP = `domus run FILE [FILE...] [key=value ...] [options]

Runs the domains that xl.cfg files describe until they end. One domain has the terminal: its console's bytes, nothing else; ^] leaves it, which
ends it, for it lives in this command. Several domains share the output by lines with their names before them. A key=value sets a key of every file.

${optionsHelp(RUN_OPTIONS)}
Ends with 0 when every domain powered off, 2 when a file or image is bad (nothing was started then), 3 when a guest crashed, 130 on ^C.
`;
export type RunOptions = { engine: EngineName; shares: readonly ShareConfig[]; net: NetChoice; hostAccess: boolean; ipv6: Ipv6Choice; forwards: readonly string[]; capture?: string; captureFilter?: string; consoleLog?: string; netRules: readonly string[]; link?: string; pcpus?: number; trace: string; json?: string; profile?: string; xenstore?: string; symbols?: string; codeCache?: string; translateAfter?: number; quiet: boolean };

/** No file a user means is larger; a device or an endless pipe in its place must not fill the memory. */
const MAX_CFG_BYTES = 1 << 20, MAX_IMAGE_BYTES = 2 ** 31 - 1, MAX_SYMBOLS_BYTES = 1 << 28;

/** Read a file or a pipe whole, never more than `most` bytes. @throws UserError with the system's reason */
export function readWhole(path: string, what: string, most: number): Uint8Array {
  try {
    const stat = statSync(path);
    if (stat.isDirectory()) throw new UserError(`${what}: ${path} is a folder`);
    if (!stat.isFile() && !stat.isFIFO()) throw new UserError(`${what}: ${path} is a device or a socket; give a file`);
    if (stat.size > most) throw new UserError(`${what}: ${path} is ${stat.size} bytes long; ${most} is the limit`);
    if (stat.isFile()) return readFileSync(path);
    const pieces: Buffer[] = [], file = openSync(path, "r");
    try {
      for (let size = 0; ;) {
        const piece = Buffer.alloc(65536), n = readSync(file, piece);
        if (n === 0) return Buffer.concat(pieces);
        if ((size += n) > most) throw new UserError(`${what}: ${path} is longer than ${most} bytes`);
        pieces.push(piece.subarray(0, n));
      }
    } finally {
      closeSync(file);
    }
  } catch (e) {
    if (e instanceof UserError) throw e;
    const { code, message } = e as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "does not exist" : code === "EACCES" ? "may not be read" : `cannot be read (${code ?? message})`;
    throw new UserError(`${what}: ${path} ${why}`);
  }
}

/** What a domain is run from. `again` reads its images for another life: what was read is let go of meanwhile; null: it is kept. */
export type Runnable = { readonly config: CheckedConfig; readonly channels: readonly ChannelSpec[]; readonly again: (() => Images) | null };
type Images = { readonly kernel: Uint8Array; readonly kernelName: string; readonly ramdisk?: Uint8Array; readonly ramdiskName?: string };
/** One of them: the file, and what it is called in messages. */
type ImageFile = { readonly path: string; readonly name: string; readonly what: string };
/** @returns what is in them, and what reads them anew: null where they can be read once, as a pipe @throws UserError */
export function readImages(kernel: ImageFile, ramdisk: ImageFile | null): { readonly first: Images; readonly again: (() => Images) | null } {
  const read = ({ path, what }: ImageFile): Uint8Array => readWhole(path, what, MAX_IMAGE_BYTES), isFile = ({ path }: ImageFile): boolean => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
  const all = (): Images => ({ kernel: read(kernel), kernelName: kernel.name, ...(ramdisk ? { ramdisk: read(ramdisk), ramdiskName: ramdisk.name } : {}) });
  return { first: all(), again: isFile(kernel) && (!ramdisk || isFile(ramdisk)) ? all : null };
}

async function loadDomain({ config, kernel, ramdisk, disks, channels, shares }: DomainFile, file: string, isThrowaway: boolean): Promise<Runnable> {
  const image = (what: string, { path, place }: { path: string; place: Place }): ImageFile => ({ path: pathOf(path, file), name: path, what: `${placeText(place)}: ${what}` });
  const { first, again } = readImages(image("kernel", kernel), ramdisk && image("ramdisk", ramdisk));
  const given = { ...config, ...first, shares: findShares(shares, file) };
  checkConfig(given);         // told before a disk is opened
  return { config: checkConfig({ ...given, disks: await openDisks(disks, file, isThrowaway) }), channels, again };
}

export const runOptions = (parsed: Parsed): RunOptions => {
  const pcpus = numberOption(parsed, "pcpus", 1, 32), json = parsed.options.get("json"), profile = parsed.options.get("profile"), capture = parsed.options.get("capture"), captureFilter = parsed.options.get("capture-filter"), consoleLog = parsed.options.get("console-log"), link = parsed.options.get("link"), netRules = parsed.options.get("net-rules")?.split(",") ?? [], xenstore = parsed.options.get("xenstore"), symbols = parsed.options.get("symbols"), codeCache = parsed.options.get("code-cache"), translateAfter = numberOption(parsed, "translate-after", 0, 2 ** 30);
  if (symbols !== undefined && profile === undefined) throw new UserError('Option "--symbols" names functions of a profile; give "--profile" too');
  if (captureFilter !== undefined && capture === undefined) throw new UserError('Option "--capture-filter" chooses what "--capture" writes; give that too');
  return {
    engine: wordOption(parsed, "engine", ENGINES) ?? "auto", shares: (parsed.repeated.get("share") ?? []).map(parseShare), net: parseNet(parsed.options.get("net") ?? "nat"), hostAccess: parsed.options.has("host-access"), ipv6: wordOption(parsed, "ipv6", IPV6_CHOICES) ?? "auto",
    forwards: parsed.options.get("forward")?.split(",") ?? [], ...(capture === undefined ? {} : { capture }), ...(captureFilter === undefined ? {} : { captureFilter }), ...(consoleLog === undefined ? {} : { consoleLog }), netRules, ...(link === undefined ? {} : { link }), trace: parsed.options.get("trace") ?? "", quiet: parsed.options.has("quiet"),
    ...(pcpus === undefined ? {} : { pcpus }), ...(json === undefined ? {} : { json }), ...(profile === undefined ? {} : { profile }), ...(xenstore === undefined ? {} : { xenstore }), ...(symbols === undefined ? {} : { symbols }), ...(codeCache === undefined ? {} : { codeCache }), ...(translateAfter === undefined ? {} : { translateAfter }),
  };
};

/** The command. */
export async function run(args: string[]): Promise<number> {
  const parsed = parseArgs(args, RUN_OPTIONS, "run");
  if (parsed.options.has("help")) { process.stdout.write(HELP); return 0; }
  const options = runOptions(parsed), files = parsed.words.filter((w) => !isSetting(w)), settings = parsed.words.filter(isSetting);
  if (files.length === 0) throw new UserError("Nothing to run: domus run FILE [FILE...] [key=value ...]");
  const read = files.map((file) => {
    const bytes = readWhole(file, "configuration", MAX_CFG_BYTES);
    if (bytes.includes(0)) throw new UserError(`configuration: ${file} is not text; an xl.cfg is wanted here (its kernel = "..." names the image)`);
    const cfg = parseXlCfg(new TextDecoder().decode(bytes), file);
    for (const word of settings) applySetting(cfg, word);
    const { domain, warnings } = fromXl(cfg, file, { strict: parsed.options.has("strict") });
    const { onPoweroff, onReboot, onCrash } = domain.config, dumping = [onPoweroff, onReboot, onCrash].find((a) => a?.startsWith("coredump-"));
    if (!options.quiet) for (const w of [...warnings, ...(dumping ? [`${file}: xl dumps cores, domus run does not: "${dumping}" is taken as "${dumping.slice(9)}"`] : [])]) printLine(w);
    return { domain, file };
  });
  const domains: Runnable[] = [];
  try {
    for (const { domain, file } of read) domains.push(await loadDomain(domain, file, parsed.options.has("throwaway")));
    return await runDomains(domains, options);
  } finally {
    await closeDisks(domains.flatMap((d) => d.config.disks), printLine);
  }
}

/** Run domains to their ends. @returns the exit code */
export async function runDomains(given: readonly Runnable[], options: RunOptions): Promise<number> {
  const configs = withShares(withForwards(given.map((g) => g.config), options.forwards), options.shares);
  const names = configs.map((c) => c.name), twice = names.find((n, i) => names.indexOf(n) !== i);
  if (twice !== undefined) throw new UserError(`Two domains are named "${twice}"; names are unique on a machine`);
  const planned = async (within?: Machine): Promise<void> => { for (const c of configs) await planDomain(c, within).catch((e) => { throw e instanceof UserError ? new UserError(`${c.name}: ${e.message}`) : e; }); };
  const symbols = options.profile === undefined ? null : await planned().then(() => readSymbols(configs, options.symbols));
  if (options.profile) write(options.profile, "", "profile");      // told now, not when the guest has run
  if (options.json) write(options.json, "", "report");
  if (options.capture !== undefined) write(options.capture, "", "capture");
  const controller = endings();
  const told = options.quiet ? () => {} : printLine, captures = options.capture === undefined ? null : new Captures(options.capture, options.captureFilter, told);
  const links = options.link === undefined ? null : new Links([parseLink(options.link)], told);
  const routers = options.net === "none" ? null : natUplinks({ hostAccess: options.hostAccess, ipv6: options.ipv6, rules: options.netRules, log: told });
  const makeUplink = routers && typeof options.net === "object" ? tapUplinks(options.net, routers, told) : routers;
  const host = nodeHost();
  await using machine = beginMachine({
    host, engine: options.engine, trace: options.trace, profile: symbols !== null, memoryMiB: configs.reduce((sum, c) => sum + c.maxmemMiB, 0), nrDomains: configs.length,
    uplink: (bridge) => {
      captures?.begin(bridge);
      links?.begin(bridge);
      return makeUplink?.(bridge) ?? null;
    },
    pcpus: options.pcpus ?? Math.min(host.nrCpus, 32, pcpusFor(configs)), ...(options.translateAfter === undefined ? {} : { translateAfter: options.translateAfter }), ...(options.codeCache === undefined ? {} : { codeCache: openCodeCache(options.codeCache) }), ...(options.quiet ? {} : { log: printLine }),
  });
  await planned(machine);        // while the pCPUs' threads read their code
  await using _served = options.xenstore === undefined ? null : await serveStore(machine.store, options.xenstore, options.quiet ? undefined : printLine);
  await using _outside = { [Symbol.asyncDispose]: async () => {       // also when a domain cannot be made: what was captured until then is worth reading
    await links?.close();
    await captures?.close();
  } };
  const lives = [...configs], imageless = new Set<number>(), ends = await Promise.all(configs.map((config, i) => superviseDomain(machine, config, {
    attach: async (domain) => {
      if (given[i]!.again) dropImages(lives[i]!);
      if (options.consoleLog !== undefined) logConsole(options.consoleLog, domain.name, domain.views, told);
      const sockets = await serveChannels(domain, given[i]!.channels, told);
      try {
        await (configs.length === 1 ? attachConsole(domain.console, controller) : copyLines(domain.name, domain.console.readable, controller.signal));
      } finally { for (const end of sockets) end(); }
    },
    next: async () => {
      try { return lives[i] = { ...config, ...given[i]!.again?.() }; } catch (e) { imageless.add(i); throw e; }
    },
    ended: (domain, end) => { if (end.crash && !controller.signal.aborted) printCrash(domain.name, end.crash); },
    notice: (text) => { if (!options.quiet) printLine(text); },
    signal: controller.signal,
  }).catch((e): DomainEnd => {
    if (!imageless.has(i)) throw e;
    printLine(`${config.name} is not started again: ${(e as Error).message}`);
    return { reason: "reboot", gaveUp: true };
  }))).catch((e): DomainEnd[] => { if (controller.signal.aborted) return []; throw e; });
  await flush(process.stdout);
  const ending = controller.signal.aborted ? (controller.signal.reason as Ending) : null;
  if (symbols) await machine.destroy();      // pCPUs tell what they counted when they end
  if (symbols && !options.quiet && machine.profiles.length < machine.hv.mm.nrPcpus) printLine("a pCPU did not end in time; what it counted is missing from the profile");
  finalReport(machine, ends, options, symbols && profileReport(machine.profiles, machine.report().domains, symbols));
  await flush(process.stderr);
  if (ending) {
    if (!options.quiet) printLine(`${ending.why}; ${names.length === 1 ? "the domain is" : "the domains are"} destroyed`);
    return ending.exitCode;
  }
  return ends.some((e) => e.reason === "crash" || e.reason === "watchdog" || e.gaveUp) ? 3 : 0;
}

/** So many as they can use, and those that they name: with one more, a vCPU is now and then on a pCPU that has none of its code translated, and 40 MB go. */
function pcpusFor(configs: readonly CheckedConfig[]): number {
  const named = configs.flatMap((c) => [...c.cpus, ...c.cpusSoft]).flatMap((a) => (a === "all" ? [] : a));
  return Math.max(configs.reduce((sum, c) => sum + c.maxvcpus, 0), ...named.map((i) => i + 1));
}
/** Give the forwards of the command line to the only domain's first interface. */
function withForwards(configs: readonly CheckedConfig[], forwards: readonly string[]): readonly CheckedConfig[] {
  if (forwards.length === 0) return configs;
  const [config, other] = configs, [vif, ...rest] = config?.vifs ?? [];
  if (!config || other) throw new UserError('Option "--forward" is for one domain; with several, write forward=... in a vif of the one that is meant');
  if (!vif) throw new UserError(`Option "--forward": ${config.name} has no network interface; give it one with vif = [ "" ]`);
  for (const spec of forwards) {
    try { parseForward(spec.replace(/-(\d+)$/, "-guest:$1")); } catch (e) {
      throw e instanceof UserError ? new UserError(`Option "--forward": ${e.message.replaceAll("-guest:", "-")}`) : e;       // in the words of who wrote it
    }
  }
  return [{ ...config, vifs: [{ ...vif, forwards: [...(vif.forwards ?? []), ...forwards] }, ...rest] }];
}

/** Open the sockets of a domain's channels; one that cannot be had is told of, the guest runs all the same. */
async function serveChannels(domain: Domain, channels: readonly ChannelSpec[], told: (sentence: string) => void): Promise<(() => void)[]> {
  const ends: (() => void)[] = [];
  for (const { name, path } of channels) await serveChannel(path, domain.channels.get(name)!).then((end) => ends.push(end), (e: Error) => told(`${domain.name}: ${e.message}`));
  return ends;
}

async function copyLines(name: string, readable: ReadableStream<Uint8Array>, signal: AbortSignal): Promise<void> {
  const prefixer = linePrefixer(name);
  await copyOut(readable, signal, prefixer);
  process.stdout.write(prefixer.rest());
}

const printCrash = (name: string, crash: CrashReport): void => printLine(crashText(name, crash));

/** Symbols of the domains' kernels, by the domains' names. */
async function readSymbols(configs: readonly CheckedConfig[], file: string | undefined): Promise<Map<string, SymbolTable>> {
  const symbols = new Map<string, SymbolTable>();
  const given = file === undefined ? null : new SymbolTable(parseSystemMap(new TextDecoder("latin1").decode(readWhole(file, "symbols", MAX_SYMBOLS_BYTES)), `symbols: ${file}`));
  for (const c of configs) {
    const own = given ? null : readKallsyms((await planDomain(c)).kernel.image), table = given ?? (own && new SymbolTable(own));
    if (table) symbols.set(c.name, table);
  }
  return symbols;
}

function write(path: string, text: string, what: string): void {
  try { writeFileSync(path, text); } catch (e) { throw new UserError(`The ${what} cannot be written to ${path}: ${(e as Error).message}`); }
}
function finalReport(machine: Machine, ends: readonly DomainEnd[], options: RunOptions, profile: ProfileReport | null): void {
  if (options.trace) process.stderr.write(`${machine.traceText()}\n`);
  if (profile && options.profile) write(options.profile, `${options.profile.endsWith(".json") ? JSON.stringify(profile) : profileText(profile)}\n`, "profile");
  else if (profile && options.json === undefined) process.stderr.write(`${profileText(profile)}\n`);
  if (options.json === undefined) return;
  const processPeakMiB = process.resourceUsage().maxRSS / 1024;
  const text = `${JSON.stringify({ ...machine.report(), processPeakMiB, ends: ends.map((e) => e.reason), ...(profile ? { profile } : {}) })}\n`;
  if (options.json === "") process.stderr.write(text);
  else write(options.json, text, "report");
}
