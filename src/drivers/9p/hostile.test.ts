import assert from "node:assert/strict";
import test from "node:test";
import { fuzzShares } from "../../../tools/fuzz/9p-campaign.ts";

test("guests gone mad get errors or lose their device; the back end stays in bounds and in its folder", { timeout: 120_000 }, async () => {
  const seen = await fuzzShares(9_000, (n) => n < 150);
  // The campaign must reach what it is for.
  for (const what of ["replies", "errors", "deaths", "made", "read", "unread"] as const) assert.ok(seen[what] > 20, `${seen[what]} ${what}`);
});
