import assert from "node:assert/strict";
import { test } from "node:test";
import type { ApiClient } from "../../api/client.node.ts";
import { DOMAIN_VERBS } from "./domains.ts";
import { Leave, type Xl } from "./verb.ts";

test("who waits for a domain is told when the daemon ends, not the domain", async () => {
  const said: string[] = [], guest = { domid: 3, name: "a", uuid: "u", state: "-b----" };
  const daemon = { call: async () => [guest], events: (o: { ready(): void }) => { o.ready(); return new ReadableStream({ start: (events) => events.close() }); } } as unknown as ApiClient;
  const xl: Xl = { out: () => {}, say: (line) => said.push(line), daemon: async () => daemon, signal: new AbortController().signal, progress: () => {}, isDryRun: false, isVerbose: false, env: {} };
  const shutdown = DOMAIN_VERBS.find((v) => v.name === "shutdown")!;
  const code = await Promise.resolve(shutdown.run!(xl, { options: new Map([["w", ""]]), words: ["a"] })).catch((e: Leave) => { said.push(e.message); return e.code; });
  assert.equal(code, 1);
  assert.match(said.join("\n"), /domusd has ended while it was listened to/);
});
