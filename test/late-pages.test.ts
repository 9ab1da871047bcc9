/**
 * Guests whose memory is not there when they begin: each page comes when it is needed, some time later, as in the second half of a post-copy migration. They judge themselves, or are a stock kernel:
 * nothing they can see is to be otherwise. Until its page comes a frame is full of rubbish, so what was touched too early is seen.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { buildGuest, guestsMissing } from "../guests/build.ts";
import { Arrival } from "../src/hypervisor/arrival.ts";
import { ownPages } from "../src/migration/pages.ts";
import type { EngineName } from "../src/toolstack/pcpu-messages.ts";
import type { DomainConfig } from "../src/toolstack/config.ts";
import { type Domain, partsOf } from "../src/toolstack/domain.ts";
import { nodeHost } from "../src/toolstack/host.node.ts";
import { createMachine } from "../src/toolstack/machine.ts";
import { images, imagesMissing } from "./guest.ts";

/** Take a domain's pages away, but for its rings', and bring each back a little after it is asked for. */
function withhold(domain: Domain): Arrival {
  const { hv, gfns, machine } = partsOf(domain), arrival = new Arrival(hv), kept = new Map<number, Uint8Array>(), { u8 } = hv.hv.views;
  for (const { gfn, mfn } of ownPages(hv)) {
    if (gfn === gfns.store || gfn === gfns.console) continue;
    const page = u8.subarray(mfn * 4096, mfn * 4096 + 4096);
    kept.set(gfn, page.slice());
    page.fill(0xf1);
    assert.ok(arrival.expect(gfn));
  }
  let nr = 0;
  arrival.onWanted = (gfns) => {
    for (const gfn of gfns) {
      const bring = (): void => arrival.place(gfn, kept.get(gfn)!);
      if (nr++ % 3 === 0) setTimeout(bring, nr % 5);
      else setImmediate(bring);
    }
  };
  machine.dom0.arrivals.set(hv.domid, arrival);
  arrival.poll();
  return arrival;
}
async function run(config: Omit<DomainConfig, "name"> & { readonly memoryMiB: number }, engine: { engine: EngineName; translateAfter?: number }, until?: RegExp): Promise<{ out: string; arrival: Arrival; nrPages: number }> {
  await using machine = await createMachine({ host: nodeHost(), memoryMiB: config.memoryMiB, pcpus: config.vcpus ?? 1, ...engine });
  const domain = await machine.createDomain({ name: "late", ...config }, { paused: true }), arrival = withhold(domain), nrPages = arrival.nrLeft, decoder = new TextDecoder();
  let out = "";
  domain.unpause();
  const timer = setTimeout(() => void domain.destroy(), 240_000);
  for await (const bytes of domain.console.readable) {
    out += decoder.decode(bytes, { stream: true });
    if (until?.test(out)) break;
  }
  clearTimeout(timer);
  return { out, arrival, nrPages };
}

const skip = guestsMissing(), ENGINES = [{ engine: "interpreter" }, { engine: "translator" }, { engine: "translator", translateAfter: 0 }] as const;
for (const engine of ENGINES) {
  const name = `${engine.engine}${"translateAfter" in engine ? ", eager" : ""}`;
  for (const guest of ["paging", "modes", "tables", "smc", "syscall", "debug", "fpu", "hypercall", "events"]) {
    test(`a guest finds all as it should be when its pages come one by one (${guest}, ${name})`, { skip }, async () => {
      const { out, arrival } = await run({ memoryMiB: 32, kernel: readFileSync(buildGuest(guest)) }, engine);
      assert.match(out, /Test result: SUCCESS/, out);
      assert.ok(arrival.nrWaits > 10, `${arrival.nrWaits} pages were waited for`);
    });
  }
}
test("Debian's kernel boots to its shell on two vCPUs with pages that come when they are needed", { skip: imagesMissing(), timeout: 300_000 }, async () => {
  const { kernel, ramdisk } = images(), { out, arrival, nrPages } = await run({ memoryMiB: 128, vcpus: 2, cmdline: "console=hvc0", kernel: readFileSync(kernel), ramdisk: readFileSync(ramdisk) }, { engine: "translator" }, /# (?:\x1b\[6n)?$/);
  assert.match(out, /# (?:\x1b\[6n)?$/, out.slice(-3000));
  assert.doesNotMatch(out, /BUG:|Oops|WARNING:|rcu: INFO/, out);
  assert.ok(arrival.nrWaits > 3000 && arrival.nrLeft < nrPages, `${arrival.nrWaits} pages were waited for, ${arrival.nrLeft} never`);
});
