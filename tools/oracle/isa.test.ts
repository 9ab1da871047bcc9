import assert from "node:assert/strict";
import { test } from "node:test";
import { runCampaign, summary } from "./campaign.ts";
import { makeInterpreter } from "../../src/x86/engine.ts";
import { engineSubject } from "./engine.ts";
import { Generator, type GeneratorClass } from "./generate.ts";
import { Native, nativeMissing } from "./native.node.ts";

const skip = nativeMissing();
/** A minute in all; the nightly command is `npm run test:isa -- --seconds 3600`. ISA_SEED chooses other cases. */
const seconds = Number(process.env.ISA_SECONDS ?? 60) / 6, other = Number(process.env.ISA_SEED ?? 0);

type Run = readonly [cls: GeneratorClass, seed: number, engine: "interpreter" | "translator"];
for (const [cls, seed, name] of [["integer", 20261, "interpreter"], ["sse", 20262, "interpreter"], ["x87", 20263, "interpreter"], ["compat", 20264, "interpreter"], ["integer", 20265, "translator"], ["sse", 20266, "translator"]] as readonly Run[]) {
  test(`random ${cls} instructions leave our ${name} and this machine's processor in the same state`, { skip }, async () => {
    const native = new Native(), engine = engineSubject(name === "interpreter" ? makeInterpreter : (memory, at, platform, o) => makeInterpreter(memory, at, platform, { ...o, translateAfter: 0 }));
    try {
      const c = await runCampaign({ generator: new Generator({ seed: seed + other, cls }), subjects: [native, engine], seconds, maxForms: 20 });
      assert.equal(c.failures.size, 0, summary(c));
    } finally { native.close(); engine.close(); }
  });
}
