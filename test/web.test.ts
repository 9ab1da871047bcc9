/** The page in Chromium, as its user has it. One browser and one boot serve all that can share them; the tests stand in their order. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { Bridge, type BridgePort } from "../src/network/bridge.ts";
import { listenForPeers } from "../src/network/link.node.ts";
import { connect } from "../src/network/port.ts";
import { acceptWebSocket } from "../src/network/websocket.ts";
import { servePage } from "../tools/web/serve.ts";
import { Browser, consoleSays, ready } from "./browser.ts";
import { images } from "./guest.ts";

let browser: Browser, page: Page;
before(async () => {
  images();
  browser = await Browser.start();
  page = await browser.tab("?pcpus=2&memory=512");
}, { timeout: 240_000 });
after(async () => { await browser?.[Symbol.asyncDispose](); });

const config = (name: string, more = "") => `name = "${name}"\ntype = "pvh"\nkernel = "vmlinuz-cloud"\nramdisk = "initramfs-cloud.cpio"\nextra = "console=hvc0 quiet"\nmemory = 128\n${more}`;
/** Type into a console that is shown; its tab gives it the keyboard a frame later. */
async function type(name: string, text: string): Promise<void> {
  await page.locator(`[id="panel-console:${name}"] .xterm-helper-textarea`).focus();
  await page.keyboard.type(text);
}
const editor = () => page.getByRole("textbox", { name: /Configuration of the new domain/ });

test("a fault of the configuration is told at its place, and nothing is made", async () => {
  await editor().fill('name = "x"\ntype = "pvh"\nkernel = vmlinuz\n');
  const status = page.locator("#config-fault");
  await status.getByText("Words stand in quotes").waitFor();
  assert.match(await status.innerText(), /line 3, column 10: kernel: Words stand in quotes: "vmlinuz"/);
  assert.equal(await editor().getAttribute("aria-invalid"), "true");
  assert.ok(await page.getByRole("button", { name: /Create domain/ }).isDisabled());
  await editor().fill('name = "x"\ntype = "pvh"\nkernel = "nowhere"\nmemory = 64\n');
  await page.getByRole("button", { name: /Create domain/ }).click();
  await status.getByText('There is no "nowhere" here').waitFor();
  assert.match(await status.innerText(), /line 3, column 10/);
});

test("a file that is no kernel is refused in words", async () => {
  await page.evaluate(() => globalThis.domus.files.add("text.img", new Blob(["this is no kernel".repeat(100)])));
  await editor().fill('name = "x"\ntype = "pvh"\nkernel = "text.img"\nmemory = 64\n');
  await page.getByRole("button", { name: /Create domain/ }).click();
  const fault = page.locator("#config-fault .fault");
  await fault.getByText(/text\.img/).waitFor();
  assert.match(await fault.innerText(), /text\.img/);
  assert.equal(await page.evaluate(() => globalThis.domus.sessions.length), 0);
});

test("a kernel of one's own is picked for the configuration", async () => {
  await editor().fill('name = "own"\ntype = "pvh"\nkernel = "none"   # mine\nmemory = 64\n');
  for (const [button, name] of [["Kernel…", "my-kernel"], ["Ramdisk…", "my-ramdisk.cpio"]] as const) {
    const chooser = page.waitForEvent("filechooser");
    await page.getByRole("button", { name: button }).click();
    await (await chooser).setFiles({ name, mimeType: "application/octet-stream", buffer: Buffer.from(name) });
    await page.waitForFunction((n) => document.querySelector("textarea")!.value.includes(n), name);
  }
  assert.equal(await editor().inputValue(), 'name = "own"\ntype = "pvh"\nkernel = "my-kernel"   # mine\nmemory = 64\nramdisk = "my-ramdisk.cpio"\n');
  assert.equal(await page.evaluate(async () => new TextDecoder().decode(await globalThis.domus.files.whole("my-kernel"))), "my-kernel");
});

test("Debian's kernel boots to a shell that is typed into, with a disk of its own and HTTP by the browser", async () => {
  await page.evaluate(async () => {
    const { store } = globalThis.domus.files, base = await store.open("base.img", "create");
    await base.truncate(8 << 20);
    await base.write(0, new TextEncoder().encode("from the base"));
    await base.close();
    const top = await store.open("top.qcow2", "create");
    await globalThis.domus.createDisk(top, { format: "qcow2", sizeBytes: 8 << 20, backing: { path: "base.img", format: "raw" } });
    await top.close();
  });
  await editor().fill(config("debian", 'disk = [ "top.qcow2,qcow2,xvda,rw" ]\nvif = [ "bridge=xenbr0" ]\n'));
  await editor().press("Control+Enter");
  await page.getByRole("tab", { name: "debian" }).and(page.locator("[aria-selected=true]")).waitFor();
  await consoleSays(page, "debian", /ends it[\s\S]*# /);
  const sum = createHash("sha256").update(Array.from({ length: 20000 }, (_, i) => `${i + 1}\n`).join("")).digest("hex");
  await type("debian", "uname -srm; seq 20000 | sha256sum\n");
  assert.match(await consoleSays(page, "debian", sum), /Linux 6\.\S+ x86_64/);
  await type("debian", "head -c 13 /dev/xvda; echo; printf written | dd of=/dev/xvda bs=512 seek=8 conv=fsync; udhcpc -i eth0 -s /etc/dhcp -n -q 2>&1 | tail -1\n");
  await consoleSays(page, "debian", /from the base[\s\S]*records out[\s\S]*lease of 10\.0\.2\.15/);
  await type("debian", "wget -qO- http://page.internal/images/list.json; echo; echo done=$?\n");
  assert.match(await consoleSays(page, "debian", /\ndone=\d/), /"kernel":"vmlinuz-cloud"/);
});

test("a domain that is paused stands still, and goes on", async () => {
  const cpuNs = async () => Number(await page.evaluate(() => globalThis.domus.machine.report().domains.find((d) => d.name === "debian")!.instructions));
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("button", { name: "Unpause" }).waitFor();
  await page.waitForFunction(() => globalThis.domus.machine.hv.domain(globalThis.domus.domains["debian"]!.domid)!.isQuiet);
  const before = await cpuNs();
  await page.waitForTimeout(200);
  assert.equal(await cpuNs(), before);
  await page.getByRole("button", { name: "Unpause" }).click();
  await type("debian", "echo up $((6*7))\n");
  await consoleSays(page, "debian", /\nup 42/);
});

test("the trace names calls, the store is seen to change, and both can be narrowed", async () => {
  await page.keyboard.press("Control+]");
  await page.keyboard.press("t");
  await page.locator("#panel-trace").getByRole("searchbox").fill("set_singleshot_timer");
  const row = page.locator("#panel-trace tbody tr").first();
  await row.getByText(/vcpu_op set_singleshot_timer .* = 0/).waitFor();
  await page.getByRole("tab", { name: "Store" }).click();
  await page.locator("#panel-store").getByRole("searchbox").fill("device/vbd");
  await page.locator("#panel-store .leaf").filter({ hasText: "virtual-device" }).first().waitFor();
  await page.evaluate(() => globalThis.domus.machine.xs.write("/local/domain/0/device/vbd/mark", "1"));
  await page.locator("#panel-store .leaf.new").filter({ hasText: "mark = 1" }).waitFor();
  await page.locator("#panel-store").getByRole("searchbox").fill("");
  await page.getByRole("tab", { name: "Trace" }).click();
  await page.getByRole("button", { name: "Clear" }).click();
  await row.getByText(/vcpu_op set_singleshot_timer .* = 0/).waitFor();
});

test("a second domain runs beside the first and is destroyed", async () => {
  await page.getByRole("tab", { name: "New domain" }).click();
  await editor().fill(config("second").replace(" quiet", ""));
  await page.getByRole("button", { name: /Create domain/ }).click();
  await consoleSays(page, "second", "Linux version 6");
  const table = page.getByRole("table").filter({ hasText: "CPU" }).first();
  assert.equal(await table.getByRole("row").count(), 3);
  const panel = page.getByRole("tabpanel").filter({ has: page.getByRole("toolbar", { name: "Domain second" }) });
  await panel.getByRole("button", { name: "Destroy" }).click();
  await panel.getByRole("button", { name: /sure/ }).click();
  await panel.getByRole("button", { name: "Start again" }).waitFor();
  await page.waitForFunction(() => Object.keys(globalThis.domus.domains).join() === "debian");
  await panel.getByRole("button", { name: "Start again" }).click();
  await consoleSays(page, "second", "Linux version 6");
  await panel.locator(".xterm-rows").getByText(/\[ +\d+\.\d+\]/).first().waitFor();
  await panel.getByRole("button", { name: "Destroy" }).click();
  await panel.getByRole("button", { name: /sure/ }).click();
  await panel.getByRole("button", { name: "Close" }).click();
});

test("a third domain is rebooted and shut down by its kernel", async () => {
  await page.getByRole("tab", { name: "New domain" }).click();
  await editor().fill(config("third"));
  await page.getByRole("button", { name: /Create domain/ }).click();
  await consoleSays(page, "third", /ends it[\s\S]*# /);
  const panel = page.getByRole("tabpanel").filter({ has: page.getByRole("toolbar", { name: "Domain third" }) });
  const before = await page.evaluate(() => globalThis.domus.domains["third"]!.domid);
  await panel.getByRole("button", { name: "Reboot" }).click();
  await page.waitForFunction((domid) => (globalThis.domus.domains["third"]?.domid ?? domid) !== domid, before);
  await consoleSays(page, "third", /ends it[\s\S]*# /);
  await panel.getByRole("button", { name: "Shut down" }).click();
  await panel.getByRole("button", { name: "Close" }).click();
});

test("a console that floods leaves the page its frames, and the guest answers afterwards", async () => {
  await page.getByRole("tab", { name: "debian" }).click();
  await type("debian", "yes 0123456789012345678901234567890123456789 | head -c 60000; echo flooded=$?\n");
  const frames = await page.evaluate(() => new Promise<number>((done) => { let n = 0; const next = () => { if (++n === 30) done(n); else requestAnimationFrame(next); }; next(); }));
  assert.equal(frames, 30);
  await consoleSays(page, "debian", /\dflooded=0/);
});

test("a reader who cannot see or use a mouse finds nothing serious in the way, in light and dark and on a phone", async () => {
  await page.addScriptTag({ path: fileURLToPath(import.meta.resolve("axe-core/axe.min.js")) });
  const look = async (where: string) => {
    const found = await page.evaluate(async () => (await (globalThis as unknown as { axe: { run(o: unknown): Promise<{ violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[] }> } }).axe.run({ resultTypes: ["violations"] })).violations
      .filter((v) => v.impact === "serious" || v.impact === "critical").map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.html} ${n.failureSummary}`).join("; ")}`));
    assert.deepEqual(found, [], where);
  };
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    for (const tab of ["debian", "New domain", "Files", "Trace", "Store"]) {
      await page.getByRole("tab", { name: tab }).click();
      await look(`${tab}, ${colorScheme}`);
    }
  }
  await page.setViewportSize({ width: 390, height: 844 });
  await page.getByRole("tab", { name: "debian" }).click();
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 390), "nothing stands beyond a phone's edge");
  await look("phone");
  await page.setViewportSize({ width: 1280, height: 800 });
});

test("a tab that was put to sleep and woken has the right time, and its guest goes on", async () => {
  const devtools = await browser.context.newCDPSession(page);
  await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
  await new Promise((done) => setTimeout(done, 1500));
  await devtools.send("Page.setWebLifecycleState", { state: "active" });
  const before = Math.floor(Date.now() / 1000);
  await type("debian", "echo now=$(date +%s).\n");
  const said = await consoleSays(page, "debian", /now=\d+\./), now = Number(/now=(\d+)\./.exec(said)![1]), after = Math.ceil(Date.now() / 1000);
  assert.ok(now >= before - 2 && now <= after + 2, `the guest says ${now}, it is ${before} to ${after}`);
});

test("bridges named tabs are one cable through all tabs", async () => {
  const other = await browser.tab("?pcpus=1&memory=256");
  await other.evaluate(() => {
    const port = globalThis.domus.machine.networks.bridge("tabs").attach({ name: "probe" });
    port.peer = { name: "ear", takesGso: true, takesBlankChecksum: true, peer: port, ready: () => {}, receive: (frame) => { document.title = `heard ${frame.bytes.length} ${frame.bytes[59]}`; return true; } };
  });
  await page.evaluate(() => {
    const port = globalThis.domus.machine.networks.bridge("tabs").attach({ name: "probe" }), bytes = new Uint8Array(60).fill(0xff, 0, 6);
    bytes.set([2, 0, 0, 0, 0, 1], 6);
    bytes[59] = 42;
    port.peer = { name: "mouth", takesGso: true, takesBlankChecksum: true, peer: port, ready: () => {}, receive: () => true };
    const timer = setInterval(() => port.receive({ bytes, checksum: "unknown", gso: null }), 50);
    setTimeout(() => clearInterval(timer), 20_000);
  });
  await other.waitForFunction(() => document.title === "heard 60 42");
  await other.close();
});

test("a page's bridge is linked with a machine's outside by WebSocket", async () => {
  const bridge = new Bridge({ name: "outside" }), heard = Promise.withResolvers<number>(), ear = bridge.attach({ name: "ear" });
  connect(ear, { name: "end", takesGso: true, takesBlankChecksum: true, peer: null, ready: () => {}, receive: (f) => { heard.resolve(f.bytes[59]!); return true; } });
  const listener = await listenForPeers({ host: "127.0.0.1", port: 0 }, { name: "link", mode: "domus" }, (name) => bridge.attach({ name }), (port) => (port as BridgePort).detach(), (raw) => acceptWebSocket(raw, []));
  const other = await browser.tab(`?pcpus=1&memory=256&link=ws://127.0.0.1:${(listener.address as { port: number }).port}/`);
  await other.evaluate(() => {
    const port = globalThis.domus.machine.networks.bridge("xenbr0").attach({ name: "probe" }), bytes = new Uint8Array(60).fill(0xff, 0, 6);
    bytes.set([2, 0, 0, 0, 0, 2], 6);
    bytes[59] = 43;
    port.peer = { name: "mouth", takesGso: true, takesBlankChecksum: true, peer: port, ready: () => {}, receive: () => true };
    setInterval(() => port.receive({ bytes, checksum: "unknown", gso: null }), 50);
  });
  assert.equal(await heard.promise, 43);
  await other.close();
  await listener.close();
});

test("a guest whose disk outgrows what the browser gives waits, says so, and goes on when there is room", async () => {
  const devtools = await browser.context.newCDPSession(page), origin = new URL(browser.server.url).origin;
  const { usage } = await devtools.send("Storage.getUsageAndQuota", { origin });
  await devtools.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: Math.ceil(usage) + (1 << 20) });
  await page.getByRole("tab", { name: "debian" }).click();
  await type("debian", "dd if=/dev/zero bs=1M count=4 2>/dev/null | tr '\\0' x | dd of=/dev/xvda bs=1M seek=2 conv=fsync 2>/dev/null; echo grown=$?; dd if=/dev/xvda bs=1M skip=2 count=4 2>/dev/null | tr -d x | wc -c\n");
  await page.locator("aside").getByText(/no more room|full/).first().waitFor();
  await devtools.send("Storage.overrideQuotaForOrigin", { origin });
  await consoleSays(page, "debian", /\ngrown=0\s+0\s/);
});

test("what a console says is found, copied and pasted, and the guest is told its size", async () => {
  await browser.context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: new URL(browser.server.url).origin });
  await page.getByRole("tab", { name: "debian" }).click();
  await type("debian", "echo needle$((6*7))\n");
  await consoleSays(page, "debian", /\nneedle42/);
  await page.keyboard.press("Control+Shift+F");
  await page.getByRole("searchbox", { name: "Find in the console" }).fill("needle42");
  await page.getByRole("button", { name: "Copy", exact: true }).click();
  await page.waitForFunction(async () => await navigator.clipboard.readText() === "needle42");
  await page.getByRole("searchbox", { name: "Find in the console" }).fill("no such words");
  await page.getByText("not found").waitFor();
  await page.keyboard.press("Escape");
  await type("debian", "echo pasted-");
  await page.getByRole("button", { name: "Paste", exact: true }).click();
  await consoleSays(page, "debian", /pasted-needle42/);
  await page.keyboard.press("Enter");
  await consoleSays(page, "debian", /\npasted-needle42/);
  const [columns, rows] = await page.evaluate(() => { const { terminal } = globalThis.domus.sessions[0]!; return [terminal.cols, terminal.rows]; });
  await page.getByRole("button", { name: "Tell size" }).click();
  await type("debian", "stty size\n");
  await consoleSays(page, "debian", new RegExp(`\\n${rows} ${columns}\\s`));
});

test("a domain that is saved goes on after a reload, in its terminal and on its disk", async () => {
  await page.getByRole("tab", { name: "debian" }).click();
  await type("debian", "mark=kept; sleep 1000 &\n");
  await consoleSays(page, "debian", /kept; sleep[\s\S]*# /);
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("button", { name: "Start again" }).waitFor();
  await page.reload();
  await ready(page);
  await page.getByRole("tab", { name: "Files" }).click();
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download debian.saved" }).click();
  assert.equal(statSync(await (await download).path()).size, await page.evaluate(async () => (await globalThis.domus.files.whole("debian.saved")).length));
  await page.getByRole("button", { name: "Resume debian.saved" }).click();
  await page.getByRole("tab", { name: "debian" }).and(page.locator("[aria-selected=true]")).waitFor();
  await type("debian", "echo $mark $(pidof sleep | wc -w); dd if=/dev/xvda bs=512 skip=8 count=1 iflag=direct 2>&1 | head -c 7; echo; udhcpc -i eth0 -s /etc/dhcp -n -q 2>&1 | tail -1\n");
  await consoleSays(page, "debian", /\nkept 1\s+written\s[\s\S]*lease of 10\.0\.2\.15/);
});

test("a state that is damaged, or another's, is refused and leaves nothing", async () => {
  const said = await page.evaluate(async () => {
    const { domus } = globalThis, whole = await domus.files.whole("debian.saved"), flipped = whole.slice();
    flipped[200000]! ^= 1;
    const tried: string[] = [];
    for (const [name, bytes] of [["short.saved", whole.slice(0, 300000)], ["flipped.saved", flipped], ["none.saved", new TextEncoder().encode("no state at all")]] as const) {
      await domus.files.add(name, new Blob([bytes]));
      tried.push(await domus.resume(name).then(() => "resumed", (e) => `${e.name}: ${e.message}`));
    }
    return tried;
  });
  for (const s of said) assert.match(s, /^(User|Stream)Error: /);
  assert.equal(await page.evaluate(() => globalThis.domus.sessions.length), 1);
});

test("what a guest wrote to its disk is in this browser after a reload, and the base is as it was", async () => {
  await page.reload();
  await ready(page);
  const read = await page.evaluate(async () => {
    const { domus } = globalThis, said: string[] = [];
    for (const [path, format] of [["top.qcow2", "qcow2"], ["base.img", "raw"]] as const) {
      const disk = await domus.openDisk({ path, format, store: domus.files.store, isReadonly: true }), sector = new Uint8Array(512);
      await disk.read(8 * 512, sector);
      said.push(new TextDecoder().decode(sector.subarray(0, 7)).replaceAll("\0", "-"));
      await disk.close();
    }
    return said;
  });
  assert.deepEqual(read, ["written", "-------"]);
});

test("a host without headers is made up for by the page's service worker", async () => {
  await using plain = await servePage({ isolated: false, folder: `${browser.folder}/page` });
  const other = await browser.tab("?pcpus=1&memory=256", plain.url);
  assert.equal(await other.evaluate(() => globalThis.crossOriginIsolated), true);
  await other.close();
});

test("a browser that lacks what the page needs is told so in a sentence", async () => {
  await using plain = await servePage({ isolated: false, folder: `${browser.folder}/page` });
  const failureOf = async (url: string, script: string): Promise<string> => {
    const other = await browser.context.newPage();
    await other.addInitScript(script);
    await other.goto(url);
    const alert = other.getByRole("alert");
    await alert.waitFor();
    const text = await alert.innerText();
    await other.close();
    return text;
  };
  assert.match(await failureOf(plain.url, "delete Navigator.prototype.serviceWorker"), /no shared memory: its host does not send Cross-Origin-Opener-Policy/);
  const refuse = (pages: number) => `WebAssembly.Memory = class extends WebAssembly.Memory { constructor(o) { if (o.initial > ${pages}) throw new RangeError("no"); super(o); } };`;
  assert.match(await failureOf(browser.server.url, refuse(0)), /too little memory .* refuses 256 MiB/);
  const small = await browser.context.newPage();
  await small.addInitScript(refuse(14_000));
  await small.goto(browser.server.url);
  await ready(small);
  await small.getByText("The browser refuses 1024 MiB; the machine has 512").waitFor();
  await small.close();
});

test("a file for which the browser has no room is refused, leaves nothing and replaces nothing", async () => {
  const devtools = await browser.context.newCDPSession(page), origin = new URL(browser.server.url).origin;
  const { usage } = await devtools.send("Storage.getUsageAndQuota", { origin });
  await devtools.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: Math.ceil(usage) + (4 << 20) });
  const said = await page.evaluate(async () => {
    const { files } = globalThis.domus;
    await files.add("big.img", new Blob([new Uint8Array(1)]));
    await files.add("big.img", new Blob([new Uint8Array([1, 2])]));
    const fault = await files.add("big.img", new Blob([new Uint8Array(32 << 20)])).then(() => null, (e) => ({ fault: e.fault, message: e.message }));
    return { fault, files: (await files.files()).filter((f) => f.name.startsWith("big.img")).map((f) => [f.name, f.sizeBytes]) };
  });
  assert.equal(said.fault?.fault, "nospace");
  assert.match(said.fault?.message ?? "", /big\.img.*no more room/);
  assert.deepEqual(said.files, [["big.img", 2]]);        // what had the name before
  await devtools.send("Storage.overrideQuotaForOrigin", { origin });
});

test("no page has thrown or logged an error", () => {
  assert.deepEqual(browser.errors.filter((e) => !/status of (404|502)|ERR_CONNECTION_REFUSED|ERR_UNSAFE_PORT|CORS|favicon/.test(e)), []);
  assert.ok(readFileSync(`${browser.folder}/page/index.html`, "utf8").includes("assets/"));
});
