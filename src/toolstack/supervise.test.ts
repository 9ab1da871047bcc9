import assert from "node:assert/strict";
import { test } from "node:test";
import { type CheckedConfig, checkConfig, type DomainConfig } from "./config.ts";
import { crashText } from "./crash.ts";
import type { Domain, DomainEnd } from "./domain.ts";
import type { Machine } from "./machine.ts";
import { actionFor, superviseDomain } from "./supervise.ts";

/** A machine whose domains end as the list says. */
function fakeMachine(ends: DomainEnd[]) {
  const told: string[] = [];
  const machine = { createDomain: async (c: CheckedConfig) => {
    const end = ends.shift()!;
    told.push(`create ${c.name}`);
    return { name: c.name, wait: async () => end, destroy: async () => { told.push("destroy"); } } as unknown as Domain;
  } } as unknown as Machine;
  const watch = { attach: async () => { told.push("attach"); }, ended: (_: Domain, e: DomainEnd) => { told.push(e.reason); }, notice: (text: string) => { told.push(text); } };
  return { machine, watch, told };
}
const config = (change: Partial<DomainConfig> = {}) => checkConfig({ name: "a", kernel: new Uint8Array(1), ...change });

test("each end has its action, xl's by default", () => {
  const by = (reason: DomainEnd["reason"], c = config()) => actionFor(c, { reason });
  assert.deepEqual([by("poweroff"), by("reboot"), by("crash"), by("watchdog"), by("destroyed")], ["destroy", "restart", "destroy", "destroy", "destroy"]);
  assert.equal(by("crash", config({ onCrash: "preserve" })), "preserve");
});

test("a domain that reboots is made again, and the last end counts", async () => {
  const { machine, watch, told } = fakeMachine([{ reason: "reboot" }, { reason: "poweroff" }]);
  assert.deepEqual(await superviseDomain(machine, config(), watch), { reason: "poweroff" });
  assert.deepEqual(told, ["create a", "attach", "reboot", "destroy", "a reboots", "create a", "attach", "poweroff", "destroy"]);
});

test("a console that cannot be attached is told at once, not when the domain ends", async () => {
  const { machine, watch } = fakeMachine([]), fake = { ...machine, createDomain: async () => ({ wait: () => new Promise(() => {}) }) as unknown as Domain } as unknown as Machine;
  await assert.rejects(superviseDomain(fake, config(), { ...watch, attach: async () => { throw new Error("no folder"); } }), /no folder/);
});

test("a preserved domain stays", async () => {
  const { machine, watch, told } = fakeMachine([{ reason: "crash" }]);
  await superviseDomain(machine, config({ onCrash: "preserve" }), watch);
  assert.ok(!told.includes("destroy"));
});

test("a domain that dies at once again and again is left alone", async () => {
  const { machine, watch, told } = fakeMachine(Array.from({ length: 9 }, () => ({ reason: "crash" as const })));
  assert.equal((await superviseDomain(machine, config({ onCrash: "restart" }), watch)).reason, "crash");
  assert.equal(told.filter((t) => t === "create a").length, 3);
  assert.match(told.at(-1)!, /lived less than 2 s 3 times/);
});

test("a crash report cannot command the terminal", () => {
  const text = crashText("a", { reason: "bad \x1b[2J\nthing", vcpu: 0, registers: { rax: "1", rip: "2" }, lastHypercalls: ["hypercall 29"] });
  assert.doesNotMatch(text, /\x1b/);
  assert.match(text, /^a crashed: bad \?\[2J\?thing \(vCPU 0\)\n.*rax 1.*rip 2\n {2}last hypercalls:\n {4}hypercall 29$/);
});

test("a domain is made again from what its owner says then, and one that is kept is renamed", async () => {
  const { machine, watch, told } = fakeMachine([{ reason: "crash" }, { reason: "poweroff" }]), names: string[] = [];
  Object.assign(machine, { renameDomain: (_: Domain, name: string) => { names.push(name); } });
  await superviseDomain(machine, config({ onCrash: "rename-restart" }), { ...watch, next: async () => config({ name: "b" }) });
  assert.deepEqual(told.filter((t) => /create|destroy/.test(t)), ["create a", "create b", "destroy"]);
  assert.match(names.join(), /^a-\d{8}T\d{4}Z$/);
});
