/** The command `domus`. */
import { readFileSync } from "node:fs";
import { UserError } from "../base/errors.ts";
import { nearest } from "../toolstack/xlkeys.ts";
import { printLine } from "./terminal.ts";

const HELP = `domus: a Xen of its own. Runs stock guest kernels, with nothing but Node.

  domus run FILE [FILE...] [key=value ...]   run the domains of xl.cfg files in the foreground
  domus start                                fetch Debian's cloud kernel and busybox, and stand in their shell
  domus disk create|info|check|convert ...   make, check, copy and change disk images
  domus net list | capture                   bridges of the machine that xl's domains are on, and what passes them
  domus image build | list | rm              make disks with a Debian on them, from Debian's packages
  domus help | version

domus COMMAND --help says more.
`;
/** Loaded when called for: a wrong word costs no more than a message. */
const COMMANDS: Readonly<Record<string, () => Promise<(args: string[]) => Promise<number>>>> = {
  run: async () => (await import("./run.ts")).run,
  disk: async () => (await import("./disk.ts")).disk,
  start: async () => (await import("./start.ts")).start,
  net: async () => (await import("./net.ts")).net,
  image: async () => (await import("./image.ts")).image,
};
const ALIASES: Readonly<Record<string, string>> = { "--help": "help", "-h": "help", "--version": "version", "-V": "version" };

async function main(args: string[]): Promise<number> {
  const word = args[0] ?? "help", command = Object.hasOwn(ALIASES, word) ? ALIASES[word]! : word;
  if (command === "help") {
    process.stdout.write(HELP);
    return args.length ? 0 : 2;
  }
  if (command === "version") {
    process.stdout.write(`domus ${JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version}\n`);
    return 0;
  }
  const load = Object.hasOwn(COMMANDS, command) ? COMMANDS[command] : undefined;
  if (!load) {
    const near = nearest(command, [...Object.keys(COMMANDS), "help", "version"]);
    throw new UserError(`Unknown command "${command}"${near ? `; did you mean "${near}"?` : ""} (domus help lists them)`);
  }
  return (await load())(args.slice(1));
}

/** Our own errors get a line and a word where to look; the stack only on request, since it tells a user nothing. */
function report(e: unknown): number {
  if (e instanceof UserError) { printLine(e.message); return 2; }
  printLine(`internal error: ${e instanceof Error ? e.message : String(e)}${process.env["DOMUS_DEBUG"] ? "" : " (DOMUS_DEBUG=1 shows where)"}`);
  if (process.env["DOMUS_DEBUG"] && e instanceof Error) process.stderr.write(`${e.stack}\n`);
  return 70;
}
/** Node restores the terminal's modes as it exits, and aborts when there is no terminal any more: then the signal that said so ends it. */
function leave(code: number): void {
  if (code === 129) {
    process.removeAllListeners("SIGHUP");
    process.kill(process.pid, "SIGHUP");
  }
  process.exit(code);
}
process.on("uncaughtException", (e) => leave(report(e)));
process.exitCode = 70;        // unless somebody says how it ended
void main(process.argv.slice(2)).catch(report).then(leave);
