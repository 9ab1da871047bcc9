/**
 * node tools/setup/run.mjs tools/fuzz/9p.ts [--seed N] [--seconds 30]
 * Guests gone mad against the back end of shared folders, one a seed. Stops at the first that makes it misbehave; --seed with that number begins there.
 */
import { parseArgs } from "node:util";
import { UserError } from "../../src/base/errors.ts";
import { runTool } from "../tool.ts";
import { fuzzShares } from "./9p-campaign.ts";

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { seed: { type: "string", default: String(Date.now() % 1e9) }, seconds: { type: "string", default: "30" } } });
  const number = (name: string, v: string): number => { const n = Number(v); if (!Number.isFinite(n) || n < 0) throw new UserError(`--${name} "${v}" is not a number`); return n; };
  const seed = number("seed", values.seed), until = performance.now() + number("seconds", values.seconds) * 1000;
  try {
    const { nrDone, ...seen } = await fuzzShares(seed, () => performance.now() < until);
    console.log(`${nrDone} guests from seed ${seed}: ${Object.entries(seen).map(([what, n]) => `${n} ${what}`).join(", ")}`);
    return 0;
  } catch (e) {
    console.error((e as Error).stack, "\n", (e as Error).cause);
    return 1;
  }
}
await runTool(import.meta.filename, main);
