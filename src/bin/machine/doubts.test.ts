import assert from "node:assert/strict";
import { test } from "node:test";
import type { Standing } from "../../migration/commit.ts";
import type { Domain } from "../../toolstack/domain.ts";
import { MigrationInDoubt } from "../../toolstack/migrate.ts";
import { Doubts, remedyOf } from "./doubts.ts";

const never = new Promise<never>(() => {}), domain = { name: "tiny" } as Domain;
const doubtOf = (migration: string): MigrationInDoubt => new MigrationInDoubt("tiny", migration, async (standing: Standing) => (standing === "running" ? null : standing === "dropped" ? domain : undefined));

test("a domain in doubt is held until somebody says who has it; whoever waits hears of it, and it is settled once", async () => {
  const doubts = new Doubts();
  doubts.hold(doubtOf("a1"), never);
  doubts.hold(doubtOf("b2"), never);
  const over = doubts.over("a1"), other = doubts.over("b2");
  assert.equal(await doubts.settle("a1", "ready"), undefined);
  assert.equal(await doubts.settle("a1", "running"), null);
  assert.equal(await over, null);
  await assert.rejects(doubts.settle("a1", "dropped"), /No domain stands still here for migration "a1"/);
  assert.equal(await doubts.settle("b2", "dropped"), domain);
  assert.equal(await other, domain);
  assert.match(remedyOf(doubtOf("a1")).message, /stands still here.*"xl migrate-settle a1 running".*"xl migrate-settle a1 dropped".*migration\.settle/);
});

test("a domain in doubt that is destroyed, or cannot go on, is said to be; it is not held any more", async () => {
  const doubts = new Doubts(), gone = Promise.withResolvers<void>();
  doubts.hold(doubtOf("a1"), gone.promise);
  const over = doubts.over("a1");
  gone.resolve();
  await assert.rejects(over, /was destroyed here while it was not known which end has it/);
  assert.throws(() => doubts.over("a1"), /No domain stands still/);
  doubts.hold(new MigrationInDoubt("tiny", "b2", () => Promise.reject(new Error("root.qcow2 is locked"))), never);
  const stuck = doubts.over("b2");
  await assert.rejects(doubts.settle("b2", "dropped"), /is locked/);
  await assert.rejects(stuck, /is locked/);
});
