/** `domus net`: the bridges of a host's machine, and captures of what passes them. */
import { createWriteStream } from "node:fs";
import { once } from "node:events";
import { finished } from "node:stream/promises";
import type { Result } from "../api/actions.ts";
import { ApiFault } from "../api/fault.ts";
import { UserError } from "../base/errors.ts";
import { numberOption, type Option, optionsHelp, parseArgs } from "./args.ts";
import { findDaemon } from "./daemon/launch.ts";
import { hostPaths } from "./paths.ts";
import { tableText } from "./table.ts";
import { endings, printLine } from "./terminal.ts";

const OPTIONS: Readonly<Record<string, Option>> = {
  write: { value: "FILE", short: "w", help: "capture: into FILE (default: stdout, for tshark -r - and its like)" },
  filter: { value: "TEXT", short: "f", help: 'capture: only what is meant by words like tcpdump\'s: "tcp port 80 or arp"' },
  snaplen: { value: "BYTES", short: "s", help: "capture: keep so much of each frame (default: all)" },
  json: { help: "list: as JSON" },
  state: { value: "DIR", help: "the host's folder (default: DOMUS_STATE, else $XDG_STATE_HOME/domus)" },
  help: { help: "this text", short: "h" },
};
const HELP = `domus net list                 the bridges of the machine that xl's domains are on, and their ports
domus net capture BRIDGE|PORT  what passes, as pcapng, until ^C; of a port what its guest sends

${optionsHelp(OPTIONS)}
A machine of "domus run" is not asked: its captures are made by --capture.
Ends with 0, also by ^C; with 2 where there is no such bridge or no daemon.
`;

/** The bridges as text. */
export function bridgesText(bridges: Result<"net.list">): string {
  const rows = bridges.flatMap((b) => b.ports.map((p) => [b.name, p.name, p.vlan, p.macs.join(","), p.state, String(p.rxFrames), String(p.rxBytes), String(p.txFrames), String(p.txBytes), String(p.dropped)]));
  return tableText([["Bridge", "Port", "VLAN", "Addresses", "State", "rx frames", "rx bytes", "tx frames", "tx bytes", "dropped"], ...rows], 5);
}

/** The command. @returns its exit code */
export async function net(args: string[]): Promise<number> {
  const parsed = parseArgs(args, OPTIONS, "domus net"), [verb, on, ...more] = parsed.words, { options } = parsed;
  if (options.has("help")) {
    process.stdout.write(HELP);
    return 0;
  }
  if (verb !== "list" && verb !== "capture") throw new UserError(`domus net ${verb ?? ""}: list and capture are what there is (domus net --help)`);
  if (more.length || (verb === "list") !== (on === undefined)) throw new UserError(verb === "list" ? "domus net list takes no words" : "domus net capture wants one bridge or port; domus net list names them");
  const paths = hostPaths(options.get("state")), daemon = await findDaemon(paths);
  if (!daemon) throw new UserError(`No domusd runs on ${paths.state}: there is no machine to look at (xl create starts one)`);
  try {
    if (verb === "list") {
      const bridges = await daemon.call("net.list", {});
      process.stdout.write(options.has("json") ? `${JSON.stringify(bridges, null, 2)}\n` : bridgesText(bridges));
      return 0;
    }
    const filter = options.get("filter"), snapLenBytes = numberOption(parsed, "snaplen", 14, 262144), file = options.get("write");
    if (file === undefined && process.stdout.isTTY) throw new UserError("domus net capture: pcapng is not for a terminal; give --write FILE, or a pipe");
    const from = await daemon.stream("net.capture", { on: on!, ...(filter === undefined ? {} : { filter }), ...(snapLenBytes === undefined ? {} : { snapLenBytes }) });
    const to = file === undefined ? process.stdout : createWriteStream(file, { mode: 0o600 });
    if (file !== undefined) await once(to, "open").catch((e) => { from.destroy(); throw new UserError(`${file} cannot be written: ${(e as Error).message}`); });
    let bytes = 0;
    from.on("data", (piece: Buffer) => { bytes += piece.length; });
    endings().signal.addEventListener("abort", () => { from.end(); }, { once: true });       // ^C, or the reader of a pipe has gone: the statistics come still
    let why: Error | null = null;
    to.on("error", (e: Error) => { why ??= e; from.destroy(); });
    from.pipe(to, { end: file !== undefined });
    await finished(from, { writable: false }).catch(() => {});
    if (file === undefined) return 0;
    await finished(to).catch(() => {});
    if (why) throw new UserError(`${file} cannot be written: ${(why as Error).message}`);
    printLine(`${bytes} bytes of pcapng in ${file}`);
    return 0;
  } catch (e) {
    if (e instanceof ApiFault) throw new UserError(e.message, { cause: e });
    throw e;
  }
}
