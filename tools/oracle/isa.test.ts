import assert from "node:assert/strict";
import { test } from "node:test";
import { runCampaign, summary } from "./campaign.ts";
import { engineSubject } from "./engine.ts";
import { Generator, type GeneratorClass } from "./generate.ts";
import { Native, nativeMissing } from "./native.node.ts";

const skip = nativeMissing();
/** A minute in all; the nightly command is `npm run test:isa -- --seconds 3600`. */
const seconds = Number(process.env.ISA_SECONDS ?? 60) / 4;

for (const [cls, seed] of [["integer", 20261], ["sse", 20262], ["x87", 20263], ["compat", 20264]] as readonly (readonly [GeneratorClass, number])[]) {
  test(`random ${cls} instructions leave our engine and this machine's processor in the same state`, { skip }, async () => {
    const native = new Native(), engine = engineSubject();
    try {
      const c = await runCampaign({ generator: new Generator({ seed, cls }), subjects: [native, engine], seconds, maxForms: 20 });
      assert.equal(c.failures.size, 0, summary(c));
    } finally { native.close(); engine.close(); }
  });
}
