import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { buildGuest, guestNames, guestsMissing } from "../guests/build.ts";

const skip = guestsMissing();
const DOMUS = join(import.meta.dirname, "..", "src", "bin", "domus.node.ts");

interface Ended { code: number | null; console: string; stderr: string }
/** Run a guest as a user would; after `seconds`, or once its console has said `word`, it is interrupted. */
function run(name: string, seconds: number, config = "", options: readonly string[] = ["--quiet"], word?: RegExp): Promise<Ended> {
  const dir = mkdtempSync(join(tmpdir(), "domus-guest-")), cfg = join(dir, `${name}.cfg`);
  writeFileSync(cfg, `name = "${name}"\ntype = "pvh"\nkernel = "${buildGuest(name)}"\nmemory = 64\n${config}`);
  return new Promise((done, fail) => {
    const child = spawn(process.execPath, [DOMUS, "run", ...options, cfg], { stdio: ["ignore", "pipe", "pipe"] });
    let console = "", stderr = "";
    child.stdout.on("data", (d) => {
      const hadSaid = word?.test(console);
      console += d;
      if (word?.test(console) && !hadSaid) child.kill("SIGINT");
    });
    child.stderr.on("data", (d) => { stderr += d; });
    const polite = setTimeout(() => child.kill("SIGINT"), seconds * 1000), hard = setTimeout(() => child.kill("SIGKILL"), seconds * 1000 + 60_000);
    child.on("error", fail);
    child.on("close", (code) => { clearTimeout(polite); clearTimeout(hard); done({ code, console, stderr }); });
  });
}

/** Guests that judge themselves, and what each is about. */
const JUDGES: Readonly<Record<string, string>> = {
  paging: "page faults carry the error code and address that the manual gives them",
  modes: "the way through compatibility, protected and real mode and back works",
  tables: "exceptions land on the stack the IDT, TSS and IST say, and broken tables fault",
  smc: "code that changes code is executed as changed",
  syscall: "SYSCALL, SWAPGS, FS and GS bases keep their rules",
  debug: "debug registers and single step report in DR6",
  fpu: "x87 and SSE are available exactly when the control bits say so",
  hypercall: "hypercalls are found, answered and refused as Xen does",
  events: "event channels of both kinds deliver what was sent, once and in order",
  timers: "timers come once, not early, and wait for IF and TPR",
};
/** The translator as it is, and translating everything the first time it is met. */
const ENGINES = [["interpreter"], ["translator"], ["translator", "--translate-after", "0"]] as const;
for (const engine of ENGINES) for (const [name, what] of Object.entries(JUDGES)) {
  test(`${what} (guest ${name}, ${engine.join(" ")})`, { skip }, async () => {
    const r = await run(name, 200, "", ["--quiet", "--engine", ...engine]);
    assert.match(r.console, /Test result: SUCCESS/, r.console + r.stderr);
    assert.equal(r.code, 0, r.stderr);
  });
}

/** vCPUs, pCPUs, engine: as many of both, and two for each. */
for (const [vcpus, pcpus, ...engine] of [[2, 2, "interpreter"], [4, 2, "translator"], [4, 4, "translator", "--translate-after", "0"]] as const) {
  test(`${vcpus} processors on ${pcpus} keep x86's memory order, lock, and execute the code that others write (guest smp, ${engine.join(" ")})`, { skip }, async () => {
    const r = await run("smp", 300, `vcpus = ${vcpus}\nextra = "cpus=${vcpus} rounds=160 restarts=20 pages=6 seed=${vcpus * pcpus}"\n`, ["--quiet", "--pcpus", String(pcpus), "--engine", ...engine]);
    assert.match(r.console, /Test result: SUCCESS/, r.console + r.stderr);
    assert.equal(r.code, 0, r.stderr);
  });
}

test("a triple fault that looks like a reboot is named, and a domain that does nothing else is given up", { skip }, async () => {
  const r = await run("triplefault", 120, "", []);
  assert.match(r.console, /^(about to fault three times\s*){3}$/);
  assert.match(r.stderr, /Triple fault at 0x[0-9a-f]+ with an empty IDT: taken for a reboot/);
  assert.equal(r.code, 3, r.stderr);
});

test("a guest that spins with interrupts off can be destroyed", { skip }, async () => {
  const r = await run("spin", 120, "", ["--quiet"], /spinning/);
  assert.match(r.console, /spinning/);
  assert.equal(r.code, 130, r.stderr);
});

for (const seed of [2, 3, 4]) {
  test(`random bytes in ring 0 harm nobody (seed ${seed})`, { skip }, async () => {
    const r = await run("wild", 4, `extra = "seed=${seed} rounds=100"\n`);
    assert.ok([0, 3, 130].includes(r.code ?? -1), `ended with ${r.code}: ${r.stderr}`);
    assert.doesNotMatch(r.stderr, /^\s+at /m, "a stack trace of ours");
  });
}

test("every guest is run by a test, or by the schedulers' benchmark", () => assert.deepEqual([...Object.keys(JUDGES), "triplefault", "spin", "wild", "smp", "load"].sort(), guestNames()));
