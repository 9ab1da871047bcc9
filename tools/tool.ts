/** What our command-line tools share: --help is the comment at the head of their file; a wrong word or a bad file is one line and exit code 2. */
import { readFileSync } from "node:fs";
import { UserError } from "../src/base/errors.ts";

const isPlain = (e: unknown): e is Error => e instanceof UserError || (e instanceof Error && /^(ERR_PARSE_ARGS|ENOENT|EACCES|EISDIR)/.test((e as { code?: string }).code ?? ""));
/** Run `main` and take its result for the exit code. */
export async function runTool(file: string, main: () => number | Promise<number>): Promise<void> {
  if (process.argv.includes("--help")) {
    const head = /^\/\*\*\n([\s\S]*?)\n \*\//.exec(readFileSync(file, "utf8"))?.[1] ?? "";
    console.log(head.replaceAll(/^ \* ?/gm, ""));
    return;
  }
  try { process.exitCode = await main(); } catch (e) {
    if (!isPlain(e)) throw e;
    console.error(e.message);
    process.exitCode = 2;
  }
}
