/** The same guests under QEMU: where they pass there, what they demand is not our own fancy. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { buildGuest, guestsMissing } from "../guests/build.ts";

const QEMU = "qemu-system-x86_64";
const skip = guestsMissing() || (spawnSync(QEMU, ["--version"], { stdio: "ignore" }).error ? "QEMU is not installed" : false);

function qemu(name: string): Promise<string> {
  // into a file: QEMU ends without waiting for a pipe to take the last words
  const log = join(mkdtempSync(join(tmpdir(), "domus-qemu-")), "serial");
  return new Promise((done, fail) => {
    const child = spawn(QEMU, ["-M", "q35", "-cpu", "max", "-accel", "tcg", "-m", "128", "-kernel", buildGuest(name), "-display", "none", "-serial", `file:${log}`, "-no-reboot",
      "-device", "isa-debug-exit,iobase=0xf4,iosize=4"], { stdio: ["ignore", "ignore", "inherit"] });
    const limit = setTimeout(() => child.kill("SIGKILL"), 30000);
    child.on("error", fail);
    child.on("close", () => { clearTimeout(limit); done(readFileSync(log, "latin1")); });
  });
}

/** Demands of the manual that QEMU 7.2's TCG does not meet: no segment limits, no SSE exceptions, few checks on MSRs. */
const TCG_LACKS: Readonly<Record<string, RegExp>> = {
  paging: /^(not canonical, stack|(read|write), reserved bit):/,
  modes: /^#GP (across the limit|below an expand-down segment|through a null selector|on a write through CS):/,
  tables: /^(gate not present|task gate|ud2 with #UD gone|int 0x51 with DPL 0|ltr of null)/,
  syscall: /^(MSR [0-9a-f]+ takes|an unknown MSR reads|WRFSBASE takes)/,
  debug: /^(DR7.GD|dr6 after DR7.GD)/,
  fpu: /^(sse exception|reserved MXCSR bits)/,
};
for (const name of ["paging", "modes", "tables", "smc", "syscall", "debug", "fpu", "timers"]) {
  test(`guest ${name} finds in QEMU's processor nothing but QEMU's known faults`, { skip }, async () => {
    const out = await qemu(name), failed = [...out.matchAll(/^Failed: (.*?)\r?$/gm)].map((m) => m[1]!);
    assert.match(out, /Test result: (SUCCESS|FAILURE)/, out);
    assert.deepEqual(failed.filter((f) => !TCG_LACKS[name]?.test(f)), []);
  });
}
