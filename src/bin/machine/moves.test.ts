import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { tinyKernel } from "../../../test/tiny-kernel.ts";
import type { TaskContext } from "../../api/tasks.ts";
import { idleHost, obey } from "../../toolstack/fixture.ts";
import { createMachine } from "../../toolstack/machine.ts";
import { domainPath } from "../../xenstore/path.ts";
import { fileSink, saveToFile } from "./moves.ts";
import type { Residents } from "./residents.ts";

test("a file that cannot be written to its end leaves nothing, and what had its name stays", async () => {
  const folder = mkdtempSync(join(tmpdir(), "domus-moves-")), path = join(folder, "saved");
  const whole = (await fileSink(path)).getWriter();
  await whole.write(new Uint8Array([1, 2, 3]));
  await whole.close();
  const broken = (await fileSink(path)).getWriter();
  broken.closed.catch(() => {});
  await assert.rejects(broken.write({ length: 1 } as Uint8Array));        // what the file system refuses
  await broken.abort().catch(() => {});
  assert.deepEqual([readdirSync(folder), [...readFileSync(path)]], [["saved"], [1, 2, 3]]);
  await assert.rejects(fileSink(folder), /is a folder; name a file in it/);
  await assert.rejects(fileSink("/dev/null"), /is a device, a pipe or a socket, which would be replaced/);
  await assert.rejects(fileSink(join(folder, "none", "saved")), /saved cannot be written: its folder does not exist/);
  rmSync(folder, { recursive: true });
});

test("a save that fails when its file has its name leaves no second copy of a domain that runs on, and the only one of a domain that does not", async () => {
  const folder = mkdtempSync(join(tmpdir(), "domus-moves-")), path = join(folder, "saved"), said: string[] = [];
  await using machine = await createMachine({ host: idleHost, memoryMiB: 48, nrDomains: 1, pcpus: 1 });
  const domain = await machine.createDomain({ name: "tiny", memoryMiB: 16, kernel: tinyKernel() }), hd = machine.hv.domain(domain.domid)!;
  using _watch = obey(machine, domain, `${domainPath(domain.domid)}/control/shutdown`);
  const residents = { keeper: () => ({ domain, name: "tiny", config: { c_info: {} }, gone: Promise.resolve() }), house: { machine, messages: { say: (text: string) => said.push(text) } } } as unknown as Residents;
  const save = (): Promise<unknown> => saveToFile(residents, "tiny", path, "run", undefined, { signal: new AbortController().signal, progress: () => {} } as unknown as TaskContext);
  const { goOn } = domain.devices;
  let nrAsked = 0;
  domain.devices.goOn = () => (nrAsked++ === 0 ? Promise.reject(new Error("no rings")) : goOn.call(domain.devices));
  await assert.rejects(save(), /tiny cannot be saved: no rings; it runs on/);
  assert.deepEqual([readdirSync(folder), hd.mayRun], [[], true]);
  domain.devices.goOn = () => Promise.reject(new Error("no rings"));
  await assert.rejects(save(), /it stands still/);
  assert.deepEqual([readdirSync(folder), hd.mayRun, said], [["saved"], false, [`tiny is whole in ${path}, and does not run on`]]);
  rmSync(folder, { recursive: true });
});
