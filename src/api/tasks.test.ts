import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../base/errors.ts";
import { EventLog } from "./events.ts";
import { ApiFault, faultFromJson, faultOf } from "./fault.ts";
import { type TaskInfo, Tasks } from "./tasks.ts";

const ended = (tasks: Tasks, id: string): Promise<TaskInfo> => new Promise((done) => { tasks.watch(id, (t) => { if (t.state !== "running") done(t); }); });

test("a task goes on unwatched, tells its steps to who watches, and keeps its end", async () => {
  const tasks = new Tasks(), go = Promise.withResolvers<void>(), seen: string[] = [];
  const { id } = tasks.start("a", async (c) => { await go.promise; c.progress({ text: "half" }); return 7; });
  const stop = tasks.watch(id, (t) => seen.push(`${t.state} ${t.progress?.text ?? ""}`));
  const over = ended(tasks, id);
  go.resolve();
  assert.equal((await over).result, 7);
  stop();
  assert.deepEqual(seen, ["running ", "running half", "done half"]);
  assert.equal((await ended(tasks, id)).state, "done");
  assert.throws(() => tasks.watch("none", () => {}), (e: ApiFault) => e.code === "notfound");
});

test("a task that is cancelled says so, one that fails says why, and too many are refused", async () => {
  const tasks = new Tasks();
  const stopped = tasks.start("a", (c) => new Promise((_, no) => { c.signal.addEventListener("abort", () => no(c.signal.reason)); }));
  tasks.cancel(stopped.id);
  assert.deepEqual([(await ended(tasks, stopped.id)).state, (await ended(tasks, stopped.id)).error?.code], ["cancelled", "cancelled"]);
  const failed = await ended(tasks, tasks.start("b", async () => { throw new UserError("no disk"); }).id);
  assert.deepEqual([failed.state, failed.error], ["failed", { code: "invalid", message: "no disk" }]);
  const go = Promise.withResolvers<void>();
  for (let i = 0; i < 256; i++) tasks.start("c", () => go.promise);
  assert.throws(() => tasks.start("c", () => go.promise), /256 tasks are under way/);
  go.resolve();
});

test("tasks that have ended are forgotten when there are many, those under way are not", async () => {
  const tasks = new Tasks(), go = Promise.withResolvers<void>(), first = tasks.start("first", () => go.promise);
  for (let i = 0; i < 300; i++) await ended(tasks, tasks.start("x", async () => i).id);
  assert.ok(tasks.list().length <= 101);
  assert.ok(tasks.list().some((t) => t.id === first.id));
  go.resolve();
});

test("errors have a word for programs, whatever they were", () => {
  assert.deepEqual([faultOf(new UserError("x: The machine has no 5 MiB left (1 MiB are free)")).code, faultOf(new UserError('name: There is a domain named "a" already')).code, faultOf(new UserError("bad")).code, faultOf(new Error("ours")).code, faultOf(new DOMException("", "AbortError")).code, faultOf("text").code],
    ["nomem", "exists", "invalid", "failed", "cancelled", "failed"]);
  assert.deepEqual([faultFromJson({ code: "busy", message: "m" }).code, faultFromJson({ code: "toString", message: "m" }).code, faultFromJson({}).message], ["busy", "failed", "The action failed without a word"]);
});

test("events are told in order, and those that are kept can be asked for", () => {
  const log = new EventLog(), seen: number[] = [];
  for (let i = 0; i < 1005; i++) log.emit({ kind: "log" });
  const stop = log.listen((e) => seen.push(e.seq), 1003);
  log.emit({ kind: "log" });
  stop();
  log.emit({ kind: "log" });
  assert.deepEqual(seen, [1004, 1005, 1006]);
  assert.equal(log.after(0).length, 1000);
});
