/**
 * npm run test:isa -- [--seconds 60] [--seed N] [--class integer|sse|x87|all|transcendental|compat] [--only REGEXP] [--subject engine|translator|native]
 *                     [--forms N] [--reports N] [--no-sequences] [--ignore REGEXP] [--cases N]
 * Random instructions on this machine's processor and on our engine. Exit code 1 when they differ.
 */
import { parseArgs } from "node:util";
import { UserError } from "../../src/base/errors.ts";
import { makeInterpreter } from "../../src/x86/engine.ts";
import { runTool } from "../tool.ts";
import { runCampaign, summary } from "./campaign.ts";
import type { Subject } from "./format.ts";
import { Generator, type GeneratorClass } from "./generate.ts";
import { Native, nativeMissing } from "./native.node.ts";

const CLASSES = ["integer", "sse", "x87", "all", "transcendental", "compat"];

async function main(): Promise<number> {
  const { values } = parseArgs({ options: {
    seconds: { type: "string", default: "60" }, seed: { type: "string", default: String(Date.now() % 1e9) }, class: { type: "string", default: "all" }, only: { type: "string" },
    subject: { type: "string", default: "engine" }, forms: { type: "string", default: "1000" }, reports: { type: "string", default: "5" }, "no-sequences": { type: "boolean", default: false }, cases: { type: "string" }, ignore: { type: "string" },
  } });
  if (!CLASSES.includes(values.class)) throw new UserError(`--class "${values.class}" is none of ${CLASSES.join(", ")}`);
  const number = (name: string, v: string): number => { const n = Number(v); if (!Number.isFinite(n) || n < 0) throw new UserError(`--${name} "${v}" is not a number`); return n; };
  const seed = number("seed", values.seed), missing = nativeMissing();
  if (missing) throw new UserError(missing);
  const generator = new Generator({ seed, cls: values.class as GeneratorClass, sequences: !values["no-sequences"], ...(values.only ? { only: new RegExp(values.only) } : {}) });
  const native = new Native(), subject: Subject = values.subject === "native" ? new Native() : (await import("./engine.ts")).engineSubject(values.subject === "translator" ? (memory, at, platform, o) => makeInterpreter(memory, at, platform, { ...o, translateAfter: 0 }) : undefined);
  try {
    const c = await runCampaign({ generator, subjects: [native, subject], seconds: number("seconds", values.seconds), maxForms: number("forms", values.forms), ...(values.ignore ? { ignore: new RegExp(values.ignore) } : {}), ...(values.cases ? { cases: number("cases", values.cases) } : {}) });
    console.log(`seed ${seed}: ${summary(c, number("reports", values.reports))}`);
    return c.failures.size ? 1 : 0;
  } finally { native.close(); subject.close(); }
}

await runTool(import.meta.filename, main);
