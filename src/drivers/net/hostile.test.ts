import assert from "node:assert/strict";
import test from "node:test";
import { fuzzNetRings } from "../../../tools/fuzz/net-ring-campaign.ts";

test("front ends gone mad get errors or lose their device; the back end stays in bounds", () => {
  const seen = fuzzNetRings(20_000, (n) => n < 400);
  // The campaign must reach what it is for.
  for (const what of ["frames", "large", "errors", "given", "deaths", "held"] as const) assert.ok(seen[what] > 50, `${seen[what]} ${what}`);
});
