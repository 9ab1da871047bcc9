/** What the browser's console has as `domus`. */
import { UserError } from "../base/errors.ts";
import { Bridge } from "../network/bridge.ts";
import { createDisk, openDisk } from "../storage/open.ts";
import type { Domain } from "../toolstack/domain.ts";
import type { Machine } from "../toolstack/machine.ts";
import type { Computer } from "./computer.ts";
import type { Session } from "./session.ts";
import type { Shelf } from "./shelf.ts";

/** docs/web.md describes it with examples. */
export interface DomusLibrary {
  /** the machine of the page: `createDomain`, `domains`, `xs`, `networks`, `traceText()` ... */
  readonly machine: Machine;
  /** domains that run, by name */
  readonly domains: Readonly<Record<string, Domain>>;
  /** the page's sessions: a domain with its terminal */
  readonly sessions: readonly Session[];
  /** files in the browser, and those beside the page */
  readonly files: Shelf;
  /** The library's own call, with bytes in place of files' names; its domain has no terminal in the page. @throws UserError */
  readonly createDomain: Machine["createDomain"];
  /** Make a domain from the text of an xl.cfg, with a console in the page. @throws UserError */
  create(config: string): Promise<Session>;
  /** Type into a console and wait until the guest has said something. @returns all it said until then, without what was typed before */
  expect(name: string, typed: string, until: RegExp | string, timeoutMs?: number): Promise<string>;
  /** Save a domain into "NAME.saved" of this browser; it ends. @throws UserError: it runs on */
  save(name: string): Promise<string>;
  /** Let a saved domain go on. @throws UserError */
  resume(file: string): Promise<Session>;
  readonly openDisk: typeof openDisk;
  readonly createDisk: typeof createDisk;
  readonly Bridge: typeof Bridge;
}

/** Make it. */
export function domusOf(computer: Computer): DomusLibrary {
  return {
    get machine() { return computer.machine.value!; },
    get domains() { return Object.fromEntries(computer.machine.value!.domains.map((d) => [d.name, d])); },
    get sessions() { return computer.sessions.value; },
    files: computer.shelf,
    createDomain: (config, options) => computer.machine.value!.createDomain(config, options),
    create: (config) => computer.create(config),
    expect: (name, typed, until, timeoutMs = 60_000) => expectOf(computer, name, typed, until, timeoutMs),
    save: (name) => {
      const session = computer.sessions.value.find((s) => s.name === name);
      if (!session) throw new UserError(`There is no domain "${name}"`);
      return computer.save(session);
    },
    resume: (file) => computer.resume(file),
    openDisk, createDisk, Bridge,
  };
}

async function expectOf(computer: Computer, name: string, typed: string, until: RegExp | string, timeoutMs: number): Promise<string> {
  const session = computer.sessions.value.find((s) => s.name === name), domain = session?.domain.value;
  if (!session || !domain) throw new UserError(`There is no domain "${name}" that runs`);
  const reader = domain.views.view().getReader(), decoder = new TextDecoder();
  const timer = setTimeout(() => void reader.cancel(), timeoutMs);
  let said = "", isFresh = false;
  const before = domain.views.backlog.length;
  session.type(typed);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`"${name}" did not say ${String(until)} in ${timeoutMs} ms; it said: ${said.slice(-500)}`);
      said += decoder.decode(isFresh || typed === "" ? value : value.subarray(Math.min(before, value.length)), { stream: true });
      isFresh = true;
      if (typeof until === "string" ? said.includes(until) : until.test(said)) return said;
    }
  } finally {
    clearTimeout(timer);
    await reader.cancel();
  }
}
