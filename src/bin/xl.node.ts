/** The command xl. */
import { writeSync } from "node:fs";
import { endings, type Ending, flush } from "./terminal.ts";
import { xlMain } from "./xl/main.ts";

const write = (text: string): void => { try { writeSync(2, text); } catch { /* nobody to tell */ } };
const controller = endings();
let isShown = false;
process.exitCode = 70;        // unless somebody says how it ended
void xlMain(process.argv.slice(2), {
  out: (text) => { process.stdout.write(text); }, say: (line) => write(`${line}\n`), isTerminal: process.stderr.isTTY === true, signal: controller.signal, env: process.env,
  progress: (text) => { isShown = true; write(`\r\x1b[K${text}`); },
  clear: () => { if (isShown) write("\r\x1b[K"); isShown = false; },
}).catch((e: Error) => {
  write(`xl: internal error: ${e.message}${process.env["DOMUS_DEBUG"] ? `\n${e.stack}` : " (DOMUS_DEBUG=1 shows where)"}\n`);
  return 70;
}).then(async (code) => {
  await flush(process.stdout);
  process.exit(controller.signal.aborted ? (controller.signal.reason as Ending).exitCode : code);
});
